import numpy as np
import pytest
from onnx import helper
from scipy import stats

from fettle.core.errors import InputError, ModelError
from fettle.core.shelf import RUNTIMES
from fettle.measure import Artifact, startup_of
from fettle.measure._fresh_process import serve_once
from fettle.measure.startup import startup_in

PARTS = {"cold_start", "process", "engine_import", "build", "first_inference", "later_inference",
         "warm_build", "warm_first_inference"}  # fmt: skip


@pytest.fixture
def product(make_onnx):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return make_onnx(nodes, {"w": np.ones((64, 64), np.float32)}, {"x": ["batch", 64]})


def answer(scale=1.0, **held):
    names = [part for part in sorted(PARTS) if part != "cold_start"]
    ms = {name: scale * (place + 1) for place, name in enumerate(names)}
    return {"ms": ms, "bytes": {"peak": 10, "baseline": 5, **held}}


def test_a_fresh_process_tells_every_part(product):
    found = startup_of(Artifact(product, RUNTIMES.make("onnxruntime", threads=1)), times=2)
    assert set(found.parts) == PARTS
    for part in found.parts.values():
        assert 0 < part.low <= part.value <= part.high
        assert (part.unit, part.n) == ("ms", 2)
    # the engine's libraries alone take longer than one small product
    assert found.parts["engine_import"].value > found.parts["later_inference"].value
    assert found.footprint.served_bytes > 0
    assert set(found.to_json()) == {f"{part}_ms" for part in PARTS} | {"memory"}


def test_cold_start_is_the_sum_of_its_parts():
    found = startup_in([answer(), answer()]).parts
    cold = ("process", "engine_import", "build", "first_inference")
    assert found["cold_start"].value == pytest.approx(sum(found[part].value for part in cold))


def test_intervals_are_students_on_logarithms():
    scales = np.array([1.0, 1.5, 0.8, 2.0])
    found = startup_in([answer(scale) for scale in scales]).parts["build"]
    logs = np.log(scales)
    low, high = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert (found.low, found.value, found.high) == pytest.approx(np.exp([low, logs.mean(), high]))


def test_memory_is_the_middle_of_the_processes():
    found = startup_in([answer(served=n) for n in (7, 100, 8)]).footprint
    assert found.served_bytes == 8
    assert startup_in([answer(served=None), answer(served=None)]).footprint.served_bytes is None


def test_wrong_requests_are_refused(product):
    runtime = RUNTIMES.make("onnxruntime")
    with pytest.raises(InputError, match="times"):
        startup_of(Artifact(product, runtime), times=1)
    with pytest.raises(InputError, match="runs"):
        serve_once(Artifact(product, runtime), runs=0)
    with pytest.raises(InputError, match="with a runtime"):
        startup_of(Artifact(product))
    with pytest.raises(ModelError, match="bf16"):
        startup_of(Artifact(product, RUNTIMES.make("onnxruntime", precision="bf16")))
