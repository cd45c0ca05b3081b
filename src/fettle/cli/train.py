"""Train a model in FP32 or mixed precision; the same command continues an interrupted run."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.cli._options import add_data, add_knobs, add_model, check_out, knob_values
from fettle.cli._outcome import Outcome
from fettle.core.files import write_json
from fettle.core.progress import reporter

if TYPE_CHECKING:
    from torch import nn

    from fettle.tasks import Task


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: each knob of the training plan is one."""
    add_model(parser)
    add_data(parser)
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue from the checkpoint in DIR, if there is one of the same run",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    from fettle.train import FitPlan

    add_knobs(parser, FitPlan)


def run(args: argparse.Namespace) -> Outcome:
    """Train the model and keep it as structure and weights."""
    from fettle.search import sole_worker

    with sole_worker(check_out(args.out)):
        return _train(args)


def _train(args: argparse.Namespace) -> Outcome:
    from fettle import models, tasks
    from fettle.core.context import Context
    from fettle.train import FitPlan, fit

    out = args.out
    task = tasks.load(args.data, seed=args.seed, task=args.task)
    model = models.load(args.model, weights=args.weights, signature=task.signature, seed=args.seed)
    checkpoints = out / "checkpoints"
    if not args.resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    plan = FitPlan(**knob_values(args, FitPlan))
    context = Context(seed=args.seed, checkpoints=checkpoints, progress=reporter())
    started = time.perf_counter()
    history = fit(model, task, plan, context)
    models.save(model, out / "model")
    result = _result(model, task, args, history.to_json(), time.perf_counter() - started)
    write_json(out / "train.json", result)
    return Outcome(result, _text(result))


def _result(
    model: nn.Module, task: Task, args: argparse.Namespace, history: Any, seconds: float
) -> dict[str, Any]:
    from fettle.measure.noninferiority import mean_score
    from fettle.train import predict

    scores = predict(model, task, "test")[1]
    found = mean_score(scores, task.metric)
    return {
        "model": args.model,
        "data": args.data,
        "metric": {"name": task.metric, "value": found.value, "low": found.low,
                   "high": found.high, "n": found.n, "split": "test"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "history": history,
        "folder": str(args.out / "model"),
        "seconds": round(seconds, 2),
    }  # fmt: skip


def _text(result: dict[str, Any]) -> str:
    metric = result["metric"]
    return (
        f"{metric['name']} on test: {metric['value']:.2%} [{metric['low']:.2%},"
        f" {metric['high']:.2%}], n = {metric['n']}\n"
        f"model    {result['folder']}\n"
        f"next     fettle compress --model {result['folder']} --data {result['data']}"
        " -t quantize.static --out runs/int8"
    )
