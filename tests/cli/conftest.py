"""The command line in this process, as a user meets it: words in; exit code, stdout, stderr out."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fettle.cli import main
from fettle.measure import lowering

STUDY = ["compress", "--model", "cifar:resnet8x0.5", "--data", "digits", "-t", "quantize.static",
         "--target", "onnxruntime", "--batch", "8", "--threads", "1", "--seconds", "0.3",
         "--max-drop", "0.5"]  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one object on stdout; anything beside it makes this fail."""
        found = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert isinstance(found, dict)
        return found


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fettle(capfd, monkeypatch):
    """Run a command in this process; what lowers a model here is tried briefly."""
    brief = replace(lowering._PLAN, seconds=0.2)
    monkeypatch.setattr(lowering, "_PLAN", brief)

    def run(*words):
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Said(code, out, err)

    return run


@pytest.fixture
def refused(fettle):
    """Run a command that must fail with `code` and say all of `needles`; return the message."""

    def run(words, *needles, code=2):
        said = fettle(*words)
        assert said.code == code, said
        assert said.out == ""
        message = said.err.splitlines()[-1]
        assert message.startswith("fettle: ")
        for needle in needles:
            assert needle in message
        return message

    return run


@pytest.fixture(scope="session")
def process():
    """Run `python -m fettle` as a process of its own."""

    def run(*words, code=None, timeout=200, **environment):
        start = ["-m", "fettle"] if code is None else ["-c", code]
        done = subprocess.run(
            [sys.executable, *start, *[str(word) for word in words]],
            capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def linear_onnx(tmp_path_factory):
    """An ONNX classifier of digits, made without torch: pixels times random weights."""
    path = tmp_path_factory.mktemp("onnx") / "linear.onnx"
    save_linear(path)
    return path


def save_linear(path: Path, classes=10, seed=0, **how):
    """Write `logits = flatten(input) · w` for images of 1×8×8."""
    weight = np.random.default_rng(seed).normal(size=(64, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), **how)


@pytest.fixture(scope="session")
def make_linear():
    return save_linear


@pytest.fixture(scope="session")
def finished(tmp_path_factory, process):
    """The folder of a finished study of a small random network; made in a process of its own."""
    out = tmp_path_factory.mktemp("study") / "out"
    said = process(*STUDY, "--out", out, "--json")
    assert said.code in (0, 1), said.err
    (out.parent / "stdout.json").write_text(said.out)
    return out


@pytest.fixture(scope="session")
def study_words():
    return STUDY
