"""`fettle.optimize` in Python: the command line's names and defaults, live modules, its result."""

import argparse
import inspect

import pytest
import torch
from torch import nn

import fettle
from fettle import tasks
from fettle.cli import build_parser
from fettle.core.bundle import Bundle
from fettle.core.errors import InputError, KnobError, ModelError, UnknownName
from fettle.search import Source
from fettle.search.asked import Optimized, asked
from fettle.testing import Recorder

QUICK = {"target": "onnxruntime", "batch": 16, "threads": 1, "seconds": 0.2, "max_drop": 0.3,
         "skip": ("prune", "distill", "quantize.aware")}  # fmt: skip
OF_THE_COMMAND_LINE_ALONE = {"help", "json", "dry_run", "explain"}
OF_PYTHON_ALONE = {"progress", "command"}


def declared():
    """Return the options of `fettle optimize` by name."""
    (verbs,) = (
        action
        for action in build_parser(["optimize"])._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return {action.dest: action for action in verbs.choices["optimize"]._actions}


def test_python_and_the_command_line_have_the_same_names():
    python = set(inspect.signature(asked).parameters) - OF_PYTHON_ALONE
    assert python == set(declared()) - OF_THE_COMMAND_LINE_ALONE


def test_and_the_same_defaults():
    parameters = inspect.signature(asked).parameters
    required = {name for name, action in declared().items() if action.required}
    assert required == {"model", "data", "out"}
    for name, action in declared().items():
        if name in OF_THE_COMMAND_LINE_ALONE | required:
            continue
        default = parameters[name].default
        assert (list(default) if isinstance(default, tuple) else default) == action.default, name


def test_every_option_is_told_in_python_too():
    named = set(inspect.signature(asked).parameters) - {"model", "data", "command"}
    assert all(f"`{name}`" in fettle.optimize.__doc__ for name in named)


class Net(nn.Module):
    """A module that no name builds."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, progress = Net(8), Recorder()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    out = tmp_path_factory.mktemp("asked") / "out"
    result = fettle.optimize(net, tasks.load("digits"), out=out, progress=progress, **QUICK)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert progress.lines
    return result, net


def test_a_live_module_is_searched(found):
    result, _ = found
    assert isinstance(result, Optimized)
    assert result.verdict == result.result["verdict"]
    assert result.passed is (result.verdict == "pass")
    assert isinstance(result.best, Bundle)
    assert result.frontier
    assert result.result["model"].startswith("live:Net-")
    assert "why" in result.result["search"]["explanation"]


def test_it_prints_and_shows_itself(found):
    result, _ = found
    assert str(result).startswith(result.verdict.upper())
    assert "times as fast" in result.explanation
    page = result._repr_html_()
    assert page.startswith("<iframe")
    assert "allow-same-origin" not in page


def test_the_same_module_again_repeats_nothing(found):
    result, net = found
    journal = result.out / "journal.jsonl"
    made = journal.read_text().count('"event": "stage"')
    again = fettle.optimize(net, tasks.load("digits"), out=result.out, **QUICK)
    assert again.result["best"]["recipe"] == result.result["best"]["recipe"]
    names = [line for line in journal.read_text().splitlines() if '"event": "stage"' in line]
    assert all('"name": "time"' in line for line in names[made:])


def test_a_module_can_be_pruned_and_opened_again():
    from fettle import models

    spec = models.keep_live(Net(8))
    module = models.load(spec)
    assert models.keep_live(Net(8)) != spec
    assert models.keep_live(module) == spec
    assert models.origin_of(module).spec == spec
    assert models.load(spec) is not module


@pytest.mark.parametrize(
    ("changed", "error", "needle"),
    [
        ({"target": "openvno"}, UnknownName, "openvino"),
        ({"time_limit": "soon"}, KnobError, "90s, 20m or 2h"),
        ({"time_limit": -3}, KnobError, "-3"),
        ({"max_drop": 1.0}, KnobError, "0.01 is one point"),
        ({"weights": "w.safetensors"}, InputError, "a live module brings its own"),
        ({"teacher_weights": ["w"]}, InputError, "expects `teacher`"),
        ({"teacher": ["a", "b"], "teacher_weights": ["w"]}, InputError, "each of the 2 teachers"),
        ({"teacher": 3}, ModelError, "got int"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(changed, error, needle, tmp_path):
    with pytest.raises(error, match=needle):
        asked(Net(4), tasks.load("digits"), **{"out": tmp_path / "out", **changed})
    assert not (tmp_path / "out").exists()


def test_models_by_name_by_path_and_as_sources(tmp_path):
    for model in ("cifar:resnet8", Source("cifar:resnet8")):
        assert asked(model, "digits").source == Source("cifar:resnet8")
    assert asked(tmp_path / "m.onnx", "digits").source.is_onnx
    taught = asked("cifar:resnet8", "digits", teacher="cifar:resnet20", teacher_weights=[""])
    assert taught.teachers == [Source("cifar:resnet20")]
    assert asked("cifar:resnet8", "digits", only="prune").wish.only == ("prune",)
    assert asked("cifar:resnet8", "digits", time_limit="2m").wish.seconds == 120


def test_a_module_of_another_process_is_named():
    from fettle import models

    with pytest.raises(ModelError, match="lived in another process"):
        models.load("live:Net-0123456789abcdef")
