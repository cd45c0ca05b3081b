import subprocess
import sys

import numpy as np
import pytest

from fettle.core.errors import MissingError
from fettle.core.machine import Machine
from fettle.core.shelf import RUNTIMES
from fettle.runtimes import openvino as room
from fettle.testing import sample

RUNTIME = RUNTIMES.make("openvino", threads=1)
here = pytest.mark.skipif(RUNTIME.supports() is not None, reason=str(RUNTIME.supports()))


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # import then raises ImportError


def test_without_the_package_it_says_what_to_install(not_installed):
    assert "pip install 'fettle[openvino]'" in RUNTIME.supports()
    with pytest.raises(MissingError) as caught:
        RUNTIME.build(sample().onnx)
    assert caught.value.exit_code == 3
    assert caught.value.mend == "pip install 'fettle[openvino]'"


def test_the_shelf_can_name_and_load_it_without_the_package(not_installed):
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from fettle.core.shelf import RUNTIMES\n"
        "print('openvino' in RUNTIMES.names(), RUNTIMES.make('openvino').supports() is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize(
    ("isa", "supported"),
    [(("avx2",), False), (("avx512_bf16",), True), (("amx_bf16",), True), (("arm_bf16",), True)],
)
@here
def test_bf16_needs_a_processor_that_has_it(monkeypatch, isa, supported):
    monkeypatch.setattr(room, "this_machine", lambda: Machine("cpu", "x86_64", isa, 1))
    reason = RUNTIME.but(precision="bf16").supports()
    assert (reason is None) is supported
    assert supported or "openvino(precision='f32')" in reason
    assert RUNTIME.supports() is None


@here
def test_the_master_runs_in_int8_as_it_is():
    session = RUNTIME.build(sample().master)
    layers = [layer for layer in session.layers() if layer.op == "Convolution"]
    assert len(layers) == 7
    assert {layer.precision for layer in layers} == {"int8"}


@here
def test_an_answer_never_comes_from_an_earlier_request():
    session = RUNTIME.build(sample().onnx)
    inputs = sample().inputs(4)
    first = session.run(inputs)["logits"].copy()
    changed = {"input": inputs["input"][::-1].copy()}
    np.testing.assert_array_equal(session.run(changed)["logits"], first[::-1])
    inputs["input"][:] = 0  # the engine shares the memory of inputs only while it runs
    np.testing.assert_array_equal(session.run(changed)["logits"], first[::-1])
