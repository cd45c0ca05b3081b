"""Layers left in float by name, in both of torch's ways to int8."""

import pytest
import torch
from torch import nn

from fettle import models
from fettle.compress.quantize._left import path_of
from fettle.compress.quantize._pt2e import capture
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES


def quantize(name, **knobs):
    if name == "quantize.aware":
        knobs["epochs"] = 1
    return TECHNIQUES.make(name, **knobs)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8),
        nn.ReLU(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def int8_weights(graph):
    """Return the shapes of the weights that are kept as int8."""
    state = graph.state_dict().values()
    return sorted(tuple(t.shape) for t in state if t.dtype == torch.int8 and t.dim() > 1)


@pytest.mark.parametrize("name", ["quantize.static", "quantize.aware"])
def test_the_named_layers_keep_their_float_weights(tiny, name):
    whole = quantize(name)(net(), tiny)
    assert int8_weights(whole) == [(4, 1, 3, 3), (4, 8), (8, 144)]
    part = quantize(name, leave="0, 6")(net(), tiny)
    assert int8_weights(part) == [(8, 144)]


def test_what_is_left_computes_in_float(tiny):
    """All but the last layer left: only its rounding is seen, and the rest is the float model's."""
    model, x = net(), torch.from_numpy(tiny.example_inputs(8)["input"])
    part = quantize("quantize.static", leave="0,4")(model, tiny)
    hidden = model[:6](x)
    last = model[6]
    scale = last.weight.abs().amax(1, keepdim=True) / 127
    weight = (last.weight / scale).round() * scale
    found = part(x)
    expected = torch.nn.functional.linear(hidden, weight, last.bias)
    step = hidden.abs().max() / 127  # a rounded input is off by half of about this
    bound = 0.6 * step * weight.abs().sum(1).max()
    assert (found - expected).abs().max() <= bound
    assert not torch.equal(found, model(x))


def test_a_pattern_takes_all_that_match(tiny):
    model = models.load("cifar:resnet8", signature=tiny.signature)
    part = quantize("quantize.static", leave="layer?.0.conv1,linear")(model, tiny)
    whole = quantize("quantize.static")(model, tiny)
    assert len(int8_weights(whole)) - len(int8_weights(part)) == 4


@pytest.mark.parametrize("name", ["quantize.static", "quantize.aware"])
def test_a_name_that_is_not_there_names_the_nearest(tiny, name):
    model = models.load("cifar:resnet8", signature=tiny.signature)
    with pytest.raises(ModelError, match=r"`layer1\.0\.conv9`.*layer1\.0\.conv"):
        quantize(name, leave="layer1.0.conv9")(model, tiny)


def test_when_all_are_left_there_is_nothing_to_quantize(tiny):
    with pytest.raises(ModelError, match="nothing to quantize"):
        quantize("quantize.static", leave="*")(net(), tiny)


def test_a_function_inside_a_module_bears_its_path():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = attention

        def forward(self, x):
            return self.inner(x, x, x, need_weights=False)[0]

    graph = capture(Net(), (torch.randn(2, 3, 8),))
    linears = [n for n in graph.graph.nodes if n.target is torch.ops.aten.linear.default]
    assert linears
    assert {path_of(node).split(".")[0] for node in linears} == {"inner"}
