from types import SimpleNamespace

import onnx
import pytest

from fettle.core.shelf import RUNTIMES
from fettle.measure import lowering
from fettle.measure._lowered_forms import Forms
from fettle.measure._slow_layers import Layer, Suspect, layers_of, suspects
from fettle.runtimes import LayerTime
from fettle.testing import sample

NAMES = ["a", "b", "c", "d"]
LAYERS = [Layer(name, f"{name}_output") for name in NAMES]
BAR = SimpleNamespace(step=lambda note, amount: None)


def times(*ms, op="QLinearConv"):
    return [LayerTime(f"{n}_token", op, m) for n, m in zip(NAMES, ms, strict=True)]


def test_the_worst_contiguous_groups_come_first():
    found = suspects(times(3, 1, 1, 6), times(1, 2, 2, 2, op="Conv"), LAYERS)
    assert found == [Suspect(3, 3, 4.0), Suspect(0, 0, 2.0)]


def test_a_small_gain_inside_a_group_does_not_split_it():
    found = suspects(times(5, 1.9, 5, 1), times(1, 2, 1, 2), LAYERS)
    assert [(s.first, s.last) for s in found] == [(0, 2)]


def test_nothing_is_suspected_where_int8_is_faster():
    assert suspects(times(1, 1, 1, 1), times(2, 2, 2, 2), LAYERS) == []


def test_what_is_in_the_noise_is_not_suspected():
    assert suspects(times(100, 100, 100, 100), times(100, 99, 101, 100), LAYERS) == []


def test_conversions_are_charged_to_the_layer_before_them():
    slow = times(1, 1, 1, 1)
    slow.insert(2, LayerTime("q", "QuantizeLinear", 5))
    slow.insert(0, LayerTime("first", "QuantizeLinear", 0.5))
    found = suspects(slow, times(1, 1, 1, 1), LAYERS)
    assert found == [Suspect(0, 1, 5.5)]  # the very first goes to the first layer


def test_products_of_activations_are_no_layers():
    slow = times(4, 1, 1, 1, op="MatMulIntegerToFloat")
    slow.insert(1, LayerTime("node_attention", "FusedMatMul", 1))
    plain = times(1, 1, 1, 1, op="MatMul")
    plain.insert(1, LayerTime("node_attention", "FusedMatMul", 1))
    assert suspects(slow, plain, LAYERS) == [Suspect(0, 0, 3.0)]


def test_engines_may_run_layers_in_another_order_and_call_them_after_their_outputs():
    slow = times(4, 1, 1, 1)
    slow = [LayerTime("b", "Conv", 1), LayerTime("a_output_nchwc", "Conv", 4), *slow[2:]]
    slow.insert(2, LayerTime("Convert_1", "Convert", 1))  # no convolution
    slow.insert(3, LayerTime("a1", "MatMul", 1))  # another's name
    assert suspects(slow, times(1, 1, 1, 1), LAYERS) == [Suspect(0, 0, 5.0)]


def test_an_engine_that_tells_nothing_or_other_layers_is_believed_nothing():
    assert suspects([], [], LAYERS) == []
    assert suspects(times(9, 9, 9, 9)[:3], times(1, 1, 1, 1), LAYERS) == []


def test_the_layers_of_a_master_are_those_with_quantized_weights():
    graph = onnx.load(sample().master).graph
    weighted = [n for n in graph.node if n.op_type in {"Conv", "Gemm"}]
    found = layers_of(sample().master)
    assert [(layer.name, layer.output) for layer in found] == [
        (node.name, node.output[0]) for node in weighted
    ]
    assert layers_of(sample().onnx) == []


@pytest.fixture
def ground(monkeypatch):
    """Of a model in which every pass changes something, and none keeps what it means."""
    monkeypatch.setattr(lowering, "_effective", lambda forms, names: tuple(names))
    monkeypatch.setattr(lowering, "_with_meant", lambda runtime, step, names: [step, *names])
    return SimpleNamespace(forms=None, runtime=None)


def test_slow_groups_are_turned_back_one_after_another(monkeypatch, ground):
    tried = []

    def accept(ground, before, after):
        tried.append((tuple(before), tuple(after)))
        return lowering.Trial(after[0], True, "faster")

    monkeypatch.setattr(lowering, "_suspected", lambda *_: [["a", "b"], ["d"]])
    monkeypatch.setattr(lowering, "_try", accept)
    kept, trials = lowering._leave_slow_alone(ground, ("graph.x",), BAR)
    assert kept == ("graph.lower_float(nodes='a,b,d')", "graph.x")
    assert tried[1] == (("graph.lower_float(nodes='a,b')", "graph.x"), kept)
    assert [trial.accepted for trial in trials] == [True, True]


def test_a_group_that_does_not_help_is_left_in_int8(monkeypatch, ground):
    def refuse(ground, before, after):
        return lowering.Trial(after[0], False, "slower")

    monkeypatch.setattr(lowering, "_suspected", lambda *_: [["a"], ["d"]])
    monkeypatch.setattr(lowering, "_try", refuse)
    kept, _ = lowering._leave_slow_alone(ground, ("graph.x",), BAR)
    assert kept == ("graph.x",)


def test_a_rewrite_that_changes_nothing_is_not_timed(tmp_path):
    runtime = RUNTIMES.make("onnxruntime", threads=1)
    ground = lowering._Ground(Forms(sample().master, tmp_path), runtime, sample().inputs(8))
    before = ("graph.lower_ort_x86",)
    after = (*before, "graph.lower_ort_x86_norms")  # the sample has no layer norm
    trial = lowering._try(ground, before, after)
    assert not trial.accepted
    assert "nothing to rewrite" in trial.reason
