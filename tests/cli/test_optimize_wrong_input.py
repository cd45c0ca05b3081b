"""What a user gets wrong with `fettle optimize`: said at once, in one line, with its mend."""

import importlib.util
import json

import numpy as np
import pytest

from fettle.search.journal import Journal

WORDS = ["optimize", "--model", "cifar:resnet8x0.5", "--data", "digits", "--target", "onnxruntime",
         "--batch", "8", "--threads", "1", "--seconds", "0.2", "--time-limit", "0.1s"]  # fmt: skip


@pytest.fixture
def optimize(refused, tmp_path):
    """Refuse `fettle optimize` with more options, before anything is made."""

    def run(*options, code=2, needles=()):
        out = tmp_path / "out"
        message = refused([*WORDS, *options, "--out", out], *needles, code=code)
        left = {path.name for path in out.glob("*")}
        assert left <= {".lock", "journal.jsonl"}
        return message

    return run


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--only", "prun"], ["unknown shelf or plug-in `prun`", "`prune`"]),
        (["--only", "quantise"], ["`quantise`", "`quantize`"]),
        (["--skip", "channels"], ["`channels`", "`prune.channels`"]),
        (["--only", "prune", "--skip", "distil"], ["`distil`", "`distill`"]),
        (["--only", ""], ["unknown shelf or plug-in"]),
        (["--only", "prune", "--skip", "prune"], ["`only` `prune`", "nothing to try"]),
        (["--objective", "beauty"], ["--objective", "latency", "beauty"]),
        (["--model", "cifar:resnet9"], ["unknown model `cifar:resnet9`", "`cifar:resnet8`"]),
        (["--model", "nowhere.py:net"], ["nowhere.py"]),
        (["--model", "nowhere.onnx"], ["nowhere.onnx"]),
        (["--weights", "nowhere.safetensors"], ["nowhere.safetensors", "there is none"]),
        (["--data", "digit"], ["unknown data source `digit`", "`digits`"]),
        (["--data", "npz:nowhere.npz"], ["nowhere.npz", "there is none"]),
        (["--target", "openvno"], ["unknown runtime `openvno`", "`openvino`"]),
    ],
)
def test_names(optimize, options, needles):
    optimize(*options, needles=needles)


@pytest.mark.parametrize(
    "text", ["0", "0s", "-5m", "soon", "", "nan", "inf", "20 minutes", "1h30m"]
)
def test_a_time_limit_that_is_none(optimize, text):
    optimize(f"--time-limit={text}", needles=["--time-limit", "90s, 20m or 2h", f"`{text}`"])


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--max-drop", "-0.01"], ["max_drop", "-0.01"]),
        (["--max-drop", "1"], ["max_drop", "0.01 is one point"]),
        (["--max-drop", "1.5"], ["max_drop", "1.5"]),
        (["--max-drop", "nan"], ["max_drop", "nan"]),
        (["--max-drop", "1%"], ["--max-drop", "1%"]),
        (["--confidence", "1"], ["confidence", "1.0"]),
        (["--batch", "0"], ["--batch", "from 1"]),
        (["--threads", "-1"], ["--threads", "from 0"]),
        (["--seconds", "0"], ["--seconds", "above 0"]),
        (["--seed", "-1"], ["--seed", "from 0"]),
    ],
)
def test_numbers(optimize, options, needles):
    optimize(*options, needles=needles)


@pytest.mark.parametrize(
    ("teacher", "needles", "code"),
    [
        (["cifar:resnet9"], ["unknown model `cifar:resnet9`", "`cifar:resnet8`"], 2),
        (["nowhere.py:net"], ["nowhere.py"], 2),
        (["cifar:resnet20", "--teacher-weights", "gone.safetensors"], ["gone.safetensors"], 2),
        (
            ["hf:nobody/nothing", "--model", "hf:bert-mini", "--data", "tokens:16:4"],
            ["nobody/nothing", "the hub can't be reached", "hf download"],
            3,
        ),
        (["nowhere.zoo:net"], ["unknown model family `nowhere.zoo`", "cifar:"], 2),
        (["{zoo}:gone"], ["zoo.py", "has no function `gone`", "broken, narrow"], 2),
        (["{zoo}:none"], ["zoo.py:none", "a torch.nn.Module, got dict"], 2),
        (["{zoo}:needy"], ["No module named 'nowhere'", "mend it"], 2),
        (["timm:resnet18"], ["needs the package `timm`", "pip install"], 3),
        (["{graph}"], ["an ONNX graph, and a torch module was expected"], 2),
        (["{zoo}:narrow"], ["`teacher`", "(2, 3)", "each example 10 numbers"], 2),
        (["{zoo}:broken"], ["`teacher`", "NaN or infinity"], 2),
    ],
    ids=["unknown", "no file", "no weights", "hub", "no module", "no function", "no model",
         "needy", "no package", "graph", "other classes", "spoiled"],
)  # fmt: skip
def test_a_teacher_that_can_not_teach(
    optimize, tmp_path, monkeypatch, linear_onnx, teacher, needles, code
):
    """Said before any work: at its own step it would come hours later."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    without(monkeypatch, "timm")
    (tmp_path / "zoo.py").write_text(ZOO)
    words = [word.format(zoo=tmp_path / "zoo.py", graph=linear_onnx) for word in teacher]
    optimize("--teacher", *words, needles=needles, code=code)


ZOO = """
import torch
from torch import nn

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def broken():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data[0, 0] = float("nan")
    return net

def none():
    return {"weights": torch.ones(3)}

def needy():
    import nowhere
"""


def without(monkeypatch, package):
    """Have a package look as if it weren't installed."""
    find = importlib.util.find_spec

    def hidden(name, *rest):
        return None if name.partition(".")[0] == package else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)


def archive(folder, **changed):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.uniform(0, 1, (300, 1, 8, 8)).astype(np.float32), "y": np.arange(300) % 10}
    np.savez(folder / "d.npz", **{**arrays, **changed})
    return f"npz:{folder / 'd.npz'}"


def with_nan():
    x = np.random.default_rng(0).uniform(0, 1, (300, 1, 8, 8)).astype(np.float32)
    x[7, 0, 3, 3] = np.nan
    return x


@pytest.mark.parametrize(
    ("changed", "needles"),
    [
        ({"y": np.zeros(300, int)}, ["at least 2 classes", "of 1"]),
        ({"x": with_nan()}, ["`x` holds 1 values that are NaN", "[7, 0, 3, 3]"]),
        ({"x": np.zeros((0, 1, 8, 8), np.float32), "y": np.zeros(0, int)}, ["empty"]),
        ({"y": np.arange(299) % 10}, ["300 examples", "299"]),
        ({"x": np.zeros((300, 1, 8, 8), np.float32)}, ["1 distinct examples"]),
    ],
    ids=["one class", "nan", "empty", "unpaired", "constant"],
)
def test_unsound_data(optimize, tmp_path, changed, needles):
    optimize("--data", archive(tmp_path, **changed), needles=needles)


@pytest.mark.parametrize(
    ("knobs", "needles"),
    [
        ("test=5000", ["the split `test`", "5000 of 300 distinct examples", "another `test`"]),
        ("select=299&test=1", ["the split `select`", "none for `train`"]),
        ("test=many", ["test", "int", "'many'"]),
        ("tset=30", ["no knob `tset`", "test"]),
    ],
)
def test_splits_that_can_not_be_carved(optimize, tmp_path, knobs, needles):
    optimize("--data", f"{archive(tmp_path)}?{knobs}", needles=needles)


TASK = """
from fettle.testing import TinyTask

class Without(TinyTask):
    def size(self, split):
        return 0 if split == "{split}" else super().size(split)

class Shared(TinyTask):
    def _part(self, split):
        return super()._part("{split}" if split == "test" else split)

def without():
    return Without(examples=400)

def shared():
    return Shared(examples=400)
"""


@pytest.mark.parametrize("split", ["test", "select", "calibrate"])
def test_no_data_is_left_for_a_split(optimize, tmp_path, split):
    (tmp_path / "mine.py").write_text(TASK.format(split=split))
    data = f"{tmp_path / 'mine.py'}:without"
    optimize("--data", data, needles=[f"no examples left in `{split}`", f"?{split}=300", "x_test"])


@pytest.mark.parametrize("split", ["select", "calibrate"])
def test_a_test_that_was_seen_before(optimize, tmp_path, split):
    (tmp_path / "mine.py").write_text(TASK.format(split=split))
    data = f"{tmp_path / 'mine.py'}:shared"
    optimize("--data", data, needles=[f"the same examples as `{split}`", "nothing else has seen"])


def test_a_target_that_is_not_on_this_machine(optimize, monkeypatch):
    from fettle.runtimes.openvino import OpenVino

    why = "this needs the package `openvino`; to mend it: pip install 'fettle[openvino]'"
    monkeypatch.setattr(OpenVino, "supports", lambda self: why)
    optimize("--target", "openvino", needles=["pip install 'fettle[openvino]'"], code=3)


def test_an_engine_for_a_gpu_where_there_is_none(fettle, tmp_path):
    said = fettle(*WORDS, "--target", "tensorrt", "--out", tmp_path / "out", "--json")
    if said.code != 3:
        pytest.skip("TensorRT works here")
    assert "to mend it: " in said.json["error"]
    assert not (tmp_path / "out").exists()


def test_a_limit_that_ends_before_the_baseline_was_measured(refused, tmp_path):
    out = tmp_path / "out"
    refused(
        [*WORDS, "--time-limit", "0.1s", "--out", out], "`time_limit` of 0.1 s", "give at least"
    )
    assert not (out / "best").exists()
    assert not (out / "result.json").exists()


def test_out_that_is_a_file(refused, tmp_path):
    (tmp_path / "out").write_text("mine")
    refused([*WORDS, "--out", tmp_path / "out"], "`--out` expects a folder", "choose another name")
    refused([*WORDS, "--out", tmp_path / "out" / "deeper"], str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("field", "theirs"), [("model", "cifar:resnet56"), ("data", "npz:other.npz")]
)
def test_out_that_holds_another_study(refused, tmp_path, field, theirs):
    out = tmp_path / "out"
    start = {"model": "cifar:resnet8x0.5", "data": "digits", field: theirs}
    Journal(out / "journal.jsonl").write("start", **start)
    (out / "result.json").write_text(json.dumps({"verdict": "pass"}))
    before = (out / "journal.jsonl").read_bytes()
    refused([*WORDS, "--out", out], f"a study of the {field} `{theirs}`", "another `--out`")
    assert (out / "journal.jsonl").read_bytes() == before
    assert json.loads((out / "result.json").read_text()) == {"verdict": "pass"}


def test_techniques_for_torch_on_an_onnx_file(refused, tmp_path, linear_onnx):
    """They would leave nothing to try, and the untouched model as what was asked for."""
    refused(
        [*WORDS, "--model", linear_onnx, "--only", "prune", "--out", tmp_path / "out"],
        "`only` `prune`", "an ONNX file, which is `graph`", "give the torch model",
    )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_options_that_are_missing(refused):
    refused(["optimize"], "--model", "--data", "--out")
