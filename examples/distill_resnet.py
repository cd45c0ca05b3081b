"""Distill a ResNet-50 into a ResNet-18: temperature 3, alpha 0.7, and what it saves.

At full size, with your own images and a trained teacher:

python examples/distill_resnet.py --data imagefolder:photos \
        --teacher torchvision:resnet50 --teacher-weights teacher.safetensors --epochs 20

As a trial of a few minutes, on digits, with a teacher trained on the spot:

python examples/distill_resnet.py --teacher cifar:resnet32 --student cifar:resnet8
"""

import argparse
import sys
from collections.abc import Sequence

from torch import nn

from fettle import models, tasks
from fettle.core.context import Context
from fettle.core.errors import FettleError
from fettle.core.progress import reporter
from fettle.core.shelf import TECHNIQUES
from fettle.tasks import Task
from fettle.train import FitPlan, accuracy, fit


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="a data source, such as imagefolder:DIR")
    parser.add_argument("--teacher", default="torchvision:resnet50")
    parser.add_argument("--teacher-weights", help="without them the teacher is trained first")
    parser.add_argument("--student", default="torchvision:resnet18")
    parser.add_argument(
        "--technique", default="logits", choices=["logits", "decoupled", "features"]
    )
    parser.add_argument("--temperature", type=float, default=3.0)
    parser.add_argument("--alpha", type=float, default=0.7, help="share of the teacher's loss")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.05)
    return parser.parse_args(argv)


def trained_teacher(args: argparse.Namespace, task: Task, context: Context) -> nn.Module:
    """Return the teacher, with its weights or fresh from training."""
    teacher = models.load(args.teacher, weights=args.teacher_weights, signature=task.signature)
    if not args.teacher_weights:
        fit(teacher, task, FitPlan(epochs=args.epochs, lr=args.lr), context)
    return teacher


def distilled(
    args: argparse.Namespace, task: Task, context: Context, teacher: nn.Module
) -> nn.Module:
    """Return the student, trained from scratch."""
    knobs = {"student": args.student, "temperature": args.temperature}
    if args.technique != "decoupled":  # which weighs two parts of its own
        knobs["alpha"] = args.alpha
    technique = TECHNIQUES.make(
        f"distill.{args.technique}", epochs=args.epochs, lr=args.lr, **knobs
    )
    return technique.within(context)(teacher, task)


def main(argv: Sequence[str] | None = None) -> None:
    args = options(argv)
    task = tasks.load(args.data)
    context = Context(progress=reporter())
    teacher = trained_teacher(args, task, context)
    student = distilled(args, task, context, teacher)
    counts = []
    for role, name, model in (
        ("teacher", args.teacher, teacher),
        ("student", args.student, student),
    ):
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
        score = accuracy(model, task, "test")
        print(f"{role}  {name}  {counts[-1]:,} parameters  {task.metric} {score:.4f}")
    print(f"compression ratio {counts[0] / counts[1]:.2f}")


if __name__ == "__main__":
    try:
        main()
    except FettleError as error:
        sys.exit(f"error: {error}")
