"""Sessions under threads: batches of all sizes at once, and closed while others run."""

import runpy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from fettle.core.errors import InputError
from fettle.core.shelf import RUNTIMES
from fettle.testing import sample

MADE = runpy.run_path(str(Path(__file__).parent / "hand_made.py"))
ENGINES = ("onnxruntime", "openvino")
SIZES = (1, 7, 2, 5, 3, 8, 1, 4)


def build(engine, model=None, **knobs):
    runtime = RUNTIMES.make(engine, **{"threads": 2, **knobs})
    if runtime.supports() is not None:
        pytest.skip(runtime.supports())
    return runtime.build(model or sample().onnx)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("goal", ["latency", "throughput"])
def test_threads_with_batches_of_all_sizes_get_their_own_answers(engine, goal):
    session = build(engine, goal=goal)
    inputs = sample().inputs()["input"]

    def work(seed):
        rng = np.random.default_rng(seed)
        for size in rng.permutation(SIZES):
            first = int(rng.integers(0, len(inputs) - size))
            found = session.run({"input": inputs[first : first + size]})["logits"]
            expected = sample().expected[first : first + size]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(24)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_session_closed_while_others_run_lets_them_finish(engine):
    session = build(engine)
    started, failed = threading.Barrier(5), []

    def work():
        started.wait()
        try:
            while True:
                found = session.run(sample().inputs(4))["logits"]
                np.testing.assert_allclose(found, sample().expected[:4], rtol=1e-3, atol=1e-3)
        except InputError as error:
            return str(error)
        except Exception as error:
            failed.append(error)
            return ""

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(work) for _ in range(4)]
        started.wait()
        session.close()
        said = [job.result(60) for job in jobs]
    assert not failed
    assert set(said) == {"this session was closed: build the model anew"}
    session.close()  # once more does no harm


@pytest.mark.parametrize("engine", ENGINES)
def test_several_outputs_and_inputs_keep_their_names(engine, tmp_path):
    node, write = MADE["node"], MADE["write"]
    kind = (TensorProto.FLOAT, ["n", 2])
    nodes = [node("Add", "a b", "sum"), node("Sub", "a b", "difference"), node("Neg", "b", "minus")]
    path = write(tmp_path / "m.onnx", nodes, a=kind, b=kind, sum=kind, difference=kind, minus=kind)
    session = build(engine, path)
    a, b = np.full((3, 2), 5, "f4"), np.full((3, 2), 2, "f4")
    found = session.run({"b": b, "a": a})
    assert {name: float(array[0, 0]) for name, array in found.items()} == {
        "sum": 7, "difference": 3, "minus": -2,
    }  # fmt: skip
    assert list(found) == [spec.name for spec in session.outputs]


@pytest.mark.parametrize("engine", ENGINES)
def test_it_says_how_many_callers_keep_it_busy(engine):
    assert build(engine).callers == 1
    assert build(engine, goal="throughput").callers == 2


def test_threads_that_sleep_between_runs_answer_the_same():
    found = build("onnxruntime", goal="shared").run(sample().inputs())["logits"]
    np.testing.assert_allclose(found, sample().expected, rtol=1e-3, atol=1e-3)


def test_openvino_tells_shapes_and_bears_one_name():
    session = build("openvino", sample().master, threads=1)
    layers = {layer.name: layer for layer in session.layers()}
    times = session.layer_times(sample().inputs(2), 2)
    assert {time.name for time in times if time.ms} <= set(layers)
    convolutions = [layer for layer in layers.values() if layer.op == "Convolution"]
    assert all(len(layer.shape) == 4 and layer.shape[0] == -1 for layer in convolutions)
    assert all(layer.origins for layer in convolutions)
