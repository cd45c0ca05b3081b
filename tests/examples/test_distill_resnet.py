"""The guide's distillation, at a size and length that a test can wait for."""

import importlib.util
import re
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "distill_resnet.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("distill_resnet", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("technique", ["logits", "decoupled"])
def test_it_prints_what_a_small_student_saves(example, technique, capsys):
    small = ["--teacher", "cifar:resnet8", "--student", "cifar:resnet8x0.5", "--epochs", "1",
             "--technique", technique, "--temperature", "3"]  # fmt: skip
    example.main(small)
    teacher, student, ratio = capsys.readouterr().out.splitlines()
    found = [
        re.fullmatch(r"\w+  \S+  ([\d,]+) parameters  top1 (\d\.\d{4})", line)
        for line in (teacher, student)
    ]
    parameters = [int(match[1].replace(",", "")) for match in found]
    assert parameters == [75002, 19074]  # counted by hand
    assert ratio == f"compression ratio {parameters[0] / parameters[1]:.2f}"
    assert all(0.0 <= float(match[2]) <= 1.0 for match in found)


def test_by_default_it_is_the_guides(example):
    args = example.options([])
    assert (args.teacher, args.student) == ("torchvision:resnet50", "torchvision:resnet18")
    assert (args.temperature, args.alpha, args.epochs) == (3.0, 0.7, 20)


@pytest.mark.slow
def test_the_guides_own_pair_learns_a_little(example, capsys):
    example.main(["--epochs", "1", "--lr", "0.01", "--technique", "features"])
    ratio = capsys.readouterr().out.splitlines()[-1]
    assert float(ratio.split()[-1]) == pytest.approx(23_522_250 / 11_175_370, abs=0.01)
