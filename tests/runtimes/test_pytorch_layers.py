"""What layers really get and make, and how long they take."""

import numpy as np
import torch
from torch import nn

from fettle.core.shelf import RUNTIMES, TECHNIQUES
from fettle.testing import sample

X = np.ones((3, 8), dtype=np.float32)


def session(module, **knobs):
    return RUNTIMES.make("pytorch", **{"threads": 1, **knobs}).build(module)


class Mixed(nn.Module):
    """The second layer insists on float32."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.norm(self.first(x))
        with torch.autocast("cpu", enabled=False):
            return self.second(hidden.float())


def test_precision_is_what_comes_out_not_what_was_asked_for():
    made = session(Mixed(), precision="bf16")
    made.run({"x": X})
    found = {layer.name: layer.precision for layer in made.layers()}
    assert found["first"] == "bf16"
    assert found["second"] == "f32"


def test_shapes_have_a_free_batch():
    made = session(Mixed())
    assert [layer.shape for layer in made.layers()] == [(), (), ()]  # nothing has run yet
    made.run({"x": X})
    assert [layer.shape for layer in made.layers()] == [(-1, 4), (-1, 4), (-1, 2)]


def test_a_loaded_model_tells_shapes_before_it_runs():
    layers = session(sample().module).layers()
    assert layers[0].shape == (-1, 16, 8, 8)
    assert layers[-1].shape == (-1, 10)


def test_times_bear_the_names_of_layers():
    for module in (Mixed(), quantized()):
        made = session(module)
        inputs = {"x": X} if isinstance(module, Mixed) else sample().inputs(4)
        made.run(inputs)
        times = made.layer_times(inputs, runs=3)
        assert [time.name for time in times] == [layer.name for layer in made.layers()]
        assert all(time.ms >= 0 for time in times)


def test_a_layer_that_is_called_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(self.layer(x))

    made = session(Twice())
    assert [time.name for time in made.layer_times({"x": X}, runs=2)] == ["layer"]


def test_compiled_code_tells_no_times_of_layers():
    assert session(Mixed(), mode="compiled").layer_times({"x": X}) == []


def test_no_hook_stays():
    module = Mixed()
    made = session(module)
    made.layer_times({"x": X}, runs=2)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def quantized():
    return TECHNIQUES.make("quantize.static")(sample().module, sample().task)


def test_the_operators_of_a_graph_are_its_layers():
    made = session(quantized())
    inputs = sample().inputs(4)
    made.run(inputs)
    layers = made.layers()
    assert sum("conv" in layer.op for layer in layers) >= 7
    assert {"int8", "f32"} <= {layer.precision for layer in layers}
