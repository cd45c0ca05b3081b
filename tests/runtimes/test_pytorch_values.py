"""What goes into a module and comes out of it, under names."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from fettle import models, tasks
from fettle.core.errors import InputError, ModelError
from fettle.core.shelf import RUNTIMES

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.full((2, 3), 10, dtype=np.float32)


class Two(nn.Module):
    def forward(self, left, right, scale=None):
        return left - right if scale is None else scale * (left - right)


class Pair(NamedTuple):
    scores: torch.Tensor
    hidden: torch.Tensor


class Makes(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


def session(module, **knobs):
    return RUNTIMES.make("pytorch", **{"threads": 1, **knobs}).build(module)


def test_a_loaded_model_has_the_inputs_of_its_task():
    tokens = tasks.load("tokens:16:2")
    module = models.load("hf:bert-mini", signature=tokens.signature)
    found = session(module)
    assert found.inputs == tokens.signature.inputs
    inputs = tokens.example_inputs(2)
    expected = found.run(inputs)["logits"]
    np.testing.assert_array_equal(found.run(dict(reversed(inputs.items())))["logits"], expected)
    assert [spec.shape for spec in found.outputs] == [(-1, 2)]


def test_arrays_under_the_names_of_forward_go_where_they_belong():
    found = session(Two())
    assert found.inputs == ()
    np.testing.assert_array_equal(found.run({"right": Y, "left": X})["logits"], X - Y)
    np.testing.assert_array_equal(
        found.run({"right": Y, "scale": Y, "left": X})["logits"], 10 * (X - Y)
    )


def test_arrays_under_other_names_go_by_position():
    np.testing.assert_array_equal(session(Two()).run({"a": X, "b": Y})["logits"], X - Y)


@pytest.mark.parametrize(
    "inputs",
    [{}, {"left": X}, {"left": X, "other": Y}, dict.fromkeys("abcd", X), {"left": X, "right": [1]},
     {"left": X, "right": np.array([["a"]])}],
)  # fmt: skip
def test_inputs_that_a_module_cant_take_are_refused(inputs):
    with pytest.raises(InputError):
        session(Two()).run(inputs)


def test_what_the_module_itself_refuses_names_the_shapes():
    with pytest.raises(InputError, match=r"float32 \[2, 3\]"):
        session(nn.Linear(4, 4)).run({"x": X})
    with pytest.raises(InputError, match="float64"):
        session(nn.Linear(3, 4)).run({"x": X.astype("f8")})


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: x, ["logits"]),
        (lambda x: (x, x + 1), ["logits", "output_1"]),
        (lambda x: [x, None, x + 1], ["logits", "output_2"]),
        (lambda x: {"scores": x, "hidden": x + 1}, ["scores", "hidden"]),
        (lambda x: OrderedDict(logits=x, past=(x + 1, x)), ["logits", "past.0", "past.1"]),
        (lambda x: Pair(x, x + 1), ["logits", "output_1"]),
    ],
)
def test_outputs_have_names(make, names):
    found = session(Makes(make))
    outputs = found.run({"x": X})
    assert list(outputs) == names
    np.testing.assert_array_equal(outputs[names[0]], X)
    assert [spec.name for spec in found.outputs] == names
    if len(names) > 1:
        np.testing.assert_array_equal(outputs[names[1]], X + 1)


def test_a_module_without_a_tensor_to_return_is_refused():
    with pytest.raises(ModelError, match="without a tensor"):
        session(Makes(lambda x: None)).run({"x": X})


def test_outputs_never_share_memory_with_inputs_or_weights():
    module = Makes(lambda x: (x, module.weight))
    module.register_parameter("weight", nn.Parameter(torch.ones(2)))
    given = X.copy()
    outputs = session(module).run({"x": given})
    outputs["logits"][:] = -1
    outputs["output_1"][:] = -1
    np.testing.assert_array_equal(given, X)
    assert module.weight.tolist() == [1, 1]


def test_types_of_outputs():
    made = session(Makes(lambda x: (x.bfloat16(), x.half(), x.double(), x.argmax(1), x > 1)))
    found = [array.dtype.name for array in made.run({"x": X}).values()]
    assert found == ["float32", "float32", "float64", "int64", "bool"]


def test_nan_goes_in_and_comes_out():
    assert np.isnan(session(nn.ReLU()).run({"x": np.full((1, 2), np.nan, "f4")})["logits"]).all()
