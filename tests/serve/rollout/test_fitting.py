"""Whether one model can stand in for another."""

from dataclasses import replace

import pytest

from fettle.core.arrays import TensorSpec
from fettle.serve.rollout._fitting import Fitting, misfit


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({}, {}, ""),
        ({"max_batch": 4}, {"max_batch": 8}, ""),
        ({"max_batch": 4}, {}, ""),
        ({"max_batch": 8}, {"max_batch": 4}, "batches of 8"),
        ({}, {"max_batch": 4}, "batches of any"),
        ({"labels": ("a", "b", "c")}, {}, ""),
        ({"labels": ("a", "b", "c")}, {"labels": ("a", "c", "b")}, "classes"),
    ],
)
def test_batches_and_classes(fake, one, other, told):
    found = misfit(fake("one", **one), fake("two", **other))
    assert told in found
    assert bool(found) == bool(told)


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize(
    "spec", [("z", "float32", (-1, 3)), ("x", "float64", (-1, 3)), ("x", "float32", (-1, 4))]
)
def test_inputs_and_outputs_are_the_same(fake, kind, spec):
    one, other = fake("one"), fake("two")
    other.signature = replace(other.signature, **{kind: (TensorSpec(*spec),)})
    assert kind in misfit(one, other)


def test_a_pair_is_looked_at_once(fake, shelf, monkeypatch):
    fitting, one, other = (
        Fitting(),
        shelf(fake("one")).served,
        shelf(fake("two", max_batch=1)).served,
    )
    assert fitting.trouble(one, other)
    other.model.signature = one.model.signature
    assert fitting.trouble(one, other)  # as it was
    assert not fitting.trouble(one, shelf(other.model).served)
