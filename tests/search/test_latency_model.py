import json
import math
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from fettle.core.errors import InputError, ModelError
from fettle.runtimes import LayerPrecision, LayerTime, Runtime, Session
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.runtimes.openvino import OpenVino
from fettle.search._kernel_sheet import charged, reference
from fettle.search.latency_model import LatencyModel, narrowed

MS = 1e-4  # a number of a weight, in the engine below
ENGINES = [OnnxRuntime(threads=1), OpenVino(threads=1)]
sheets = []  # what the engine below was asked to build


class Counted(Session):
    """An engine whose layers take a time for each number of their weights, and 1 ms for an edge."""

    inputs = outputs = ()

    def __init__(self, graph, speed, tells):
        self.graph, self.speed, self.tells = graph, speed, tells

    def run(self, inputs):
        return {}

    def layers(self):
        return [LayerPrecision(t.name, t.op, "f32") for t in self.layer_times({})]

    def layer_times(self, inputs, runs=20):
        if not self.tells:
            return []
        sizes = {t.name: int(np.prod(t.dims)) for t in self.graph.initializer if len(t.dims) > 1}
        return [
            LayerTime(node.name, node.op_type, self.took(node, sizes)) for node in self.graph.node
        ]

    def took(self, node, sizes):
        if "edge" in node.name:
            return 1.0
        if node.op_type == "GlobalAveragePool":
            return MS / self.speed
        return MS / self.speed * sum(sizes.get(name, 0) for name in node.input)

    def close(self):
        pass


@dataclass(frozen=True, kw_only=True)
class Counting(Runtime):
    """Builds such sessions."""

    speed: float = 1.0
    tells: bool = True
    largest: int = 99  # products that it takes in one graph

    @classmethod
    def name(cls):
        return "counting"

    def build(self, model, lowering=()):
        graph = onnx.load(model).graph
        sheets.append(graph)
        kernels = {node.name.partition(".")[0] for node in graph.node}
        if len(kernels) > self.largest:
            raise ModelError("too many")
        return Counted(graph, self.speed, self.tells)


@pytest.fixture(autouse=True)
def fresh():
    sheets.clear()


@pytest.fixture
def model(tmp_path):
    def build(batch=2, runtime=None, **given):
        inputs = {"x": np.zeros((batch, 3, 8, 8), np.float32)}
        return LatencyModel(runtime or Counting(), inputs, cache=tmp_path / "cache", **given)

    return build


def expected(channels, blocks):
    """The numbers of all weights, and one pool."""
    weights = 27 * channels + 2 * blocks * 9 * channels**2 + 5 * channels
    return MS * (weights + 1)


@pytest.mark.parametrize(("channels", "blocks"), [(8, 1), (8, 3), (16, 2)])
def test_the_sum_of_the_kernels_without_the_edges(model, residual, channels, blocks):
    found = model().predict(residual(channels, blocks))
    assert found.ms == pytest.approx(expected(channels, blocks))


def test_each_kind_is_measured_once(model, residual):
    fitted = model()
    assert fitted.predict(residual(blocks=1)).measured == 5
    assert fitted.predict(residual(blocks=4, name="deep.onnx")).measured <= 1
    count = len(sheets)
    assert fitted.predict(residual(blocks=9, name="deeper.onnx")).measured == 0
    assert len(sheets) == count


def test_a_later_model_starts_with_the_table(model, residual, tmp_path):
    path = residual()
    model().predict(path)
    assert model().predict(path).measured == 0
    assert model(batch=4).predict(path).measured == 5  # other shapes
    assert model(runtime=Counting(threads=2)).predict(path).measured == 5  # another engine
    assert len(list((tmp_path / "cache").glob("*.json"))) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ms": 3}', '{"ms": {"a": "b"}}'])
def test_a_table_that_is_none_is_measured_anew(model, residual, tmp_path, text):
    model().predict(residual())
    (table,) = (tmp_path / "cache").glob("*.json")
    table.write_text(text)
    assert model().predict(residual()).measured == 5


def test_a_cache_that_cannot_be_written_costs_time_only(residual, tmp_path):
    (tmp_path / "file").write_text("")
    inputs = {"x": np.zeros((2, 3, 8, 8), np.float32)}
    fitted = LatencyModel(Counting(), inputs, cache=tmp_path / "file" / "cache")
    assert fitted.predict(residual()).ms == pytest.approx(expected(8, 1))


def test_the_error_is_unknown_before_three_were_observed(model, residual):
    fitted = model()
    for number, blocks in enumerate((1, 2, 3)):
        found = fitted.predict(residual(blocks=7, name="seven.onnx"))
        assert fitted.error() is None
        assert (found.low, found.high) == (0, math.inf)
        assert found.to_json()["high"] is None
        path = residual(blocks=blocks, name=f"{number}.onnx")
        fitted.observe(path, 1.5 * expected(8, blocks))
    found = fitted.predict(residual(blocks=7, name="seven.onnx"))
    assert fitted.error().n == 3
    assert found.ms == pytest.approx(1.5 * expected(8, 7))
    assert found.low < found.ms < found.high < 1.1 * found.ms


def test_the_interval_is_as_wide_as_the_models_missed(model, residual):
    fitted = model()
    for blocks, luck in ((1, 0.8), (2, 1.0), (3, 1.2), (4, 0.9), (5, 1.1)):
        path = residual(blocks=blocks, name=f"{blocks}.onnx")
        fitted.observe(path, luck * expected(8, blocks))
    found = fitted.predict(residual(blocks=6, name="6.onnx"))
    assert found.high / found.ms == pytest.approx(1 + fitted.error().p90)
    assert fitted.error().p90 > 0.1


def test_a_model_observed_again_counts_once(model, residual):
    fitted, path = model(), residual()
    for ms in (1.0, 2.0, 3.0):
        fitted.observe(path, ms)
    assert fitted.error() is None
    assert fitted.predict(path).ms == pytest.approx(3.0)


def test_layers_sum_to_the_prediction(model, residual):
    fitted, path = model(), residual(blocks=2)
    fitted.observe(path, 2 * expected(8, 2))
    layers = fitted.by_layer(path)
    assert sum(layer.ms for layer in layers) == pytest.approx(fitted.predict(path).ms)
    assert [layer.name.partition("_")[0] for layer in layers][-2:] == ["GlobalAveragePool", "Gemm"]
    assert layers[1].ms == pytest.approx(2 * MS * 9 * 64)
    assert layers[1].key == fitted.kernels(path)[1].key
    assert len(layers[2].nodes) == 3


def test_a_narrower_layer_is_asked_for_by_itself(model, residual):
    fitted = model()
    inner = fitted.kernels(residual(channels=16))[1]
    (ms,) = fitted.ms([narrowed(inner, outputs=0.5, inputs=0.25)])
    assert ms == pytest.approx(MS * 9 * 8 * 4)


def test_a_slower_machine_is_seen_by_the_reference(tmp_path, residual):
    """The table keeps what kernels take while the reference takes what it took at first."""
    fitted = LatencyModel(Counting(), {"x": np.zeros((2, 3, 8, 8))}, cache=tmp_path)
    first = fitted.predict(residual())
    fitted.table.runtime = Counting(speed=0.5)
    wide = fitted.predict(residual(channels=16, name="wide.onnx"))
    assert wide.measured == 5
    assert first.ms == pytest.approx(expected(8, 1))
    assert wide.ms == pytest.approx(expected(16, 1))


def test_rows_without_a_name_go_to_who_made_what_they_read():
    def row(name, ms, *origins):
        return LayerPrecision(name, "Any", "f32", origins=origins), ms

    rows = [row("Stray", 64.0), row("k0.edge.x", 32.0), row("Reorder", 16.0), row("k0.conv", 1.0),
            row("Reorder_2", 2.0), row("k1.edge.y", None), row("Multiply_8", 4.0, "k1.gemm"),
            row("k0.late", 8.0, "k0.edge.out")]  # fmt: skip
    assert charged(rows, 3) == [11.0, 4.0, 0.0]


def test_what_is_refused_in_company_is_timed_alone(model, residual):
    found = model(runtime=Counting(largest=1)).predict(residual())
    assert found.ms == pytest.approx(expected(8, 1))


def test_an_engine_that_tells_no_times_is_refused(model, residual):
    with pytest.raises(ModelError, match="doesn't tell the time"):
        model(runtime=Counting(tells=False)).predict(residual())


def test_a_model_of_a_fixed_batch_runs_as_often_as_needed(model, residual):
    free, fixed = residual(), residual(batch=2, name="fixed.onnx")
    assert model(batch=5).predict(fixed).ms == pytest.approx(3 * model(batch=2).predict(free).ms)


@pytest.mark.parametrize("ms", [0, -1.0, math.nan, math.inf])
def test_a_time_is_positive(model, residual, ms):
    with pytest.raises(InputError, match="positive time"):
        model().observe(residual(), ms)


def test_no_inputs_and_no_model(tmp_path, model):
    with pytest.raises(InputError, match="one batch"):
        LatencyModel(Counting(), {}, cache=tmp_path)
    (tmp_path / "bad.onnx").write_text("none")
    for name in ("bad.onnx", "absent.onnx"):
        with pytest.raises(ModelError):
            model().predict(tmp_path / name)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("runtime", ENGINES, ids=lambda r: type(r).__name__)
def test_real_engines_tell_every_convolution(model, residual, runtime, quantized):
    path = residual(channels=16, blocks=2, quantized=quantized)
    fitted = model(batch=32, runtime=runtime)
    heavy = [layer.ms for layer in fitted.by_layer(path) if layer.name.startswith("Conv")]
    assert len(heavy) == 5
    assert all(ms > 0 for ms in heavy)
    kept = json.loads(next(fitted.table._path.parent.glob("*.json")).read_text())
    assert reference((("", 17),)).key in kept["ms"]
