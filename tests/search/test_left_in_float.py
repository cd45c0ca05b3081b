"""What a layer in float costs in time: played sessions, for real times are nobody's to assert."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from fettle.core.errors import ModelError
from fettle.measure import Ratio
from fettle.runtimes import LayerPrecision
from fettle.search import _left_in_float
from fettle.search._left_in_float import LEAST, LeftInFloat
from fettle.testing.fakes import FakeSession


class PlayedRuntime:
    """Builds sessions that compute nothing."""

    threads = 1
    refuses, obeys = False, True

    def __init__(self):
        self.sessions = []

    def __str__(self):
        return "played"

    def name(self):
        return "played"

    def values(self):
        return {}

    def build(self, path, lowering):
        assert path.is_file()
        assert lowering == ("graph.lower",)
        if self.refuses:
            raise ModelError("no")
        products = ["int8", "f32"] if self.obeys and not self.sessions else ["int8", "int8"]
        made = FakeSession(lambda given: given)
        made.layers = lambda: [LayerPrecision("n", "QLinearConv", each) for each in products]
        self.sessions.append(made)
        return self.sessions[-1]


class Masters:
    def __init__(self):
        self.asked = []

    def leaving(self, nodes):
        self.asked.append(tuple(nodes))


@pytest.fixture
def timed(monkeypatch, store):
    """A cost of a layer in float where the engine takes `found` times as long with it."""

    def make(found, low=None, high=None, inputs=4):
        monkeypatch.setattr("onnx_ir.save", lambda model, path: path.write_text(""))
        monkeypatch.setattr(
            _left_in_float, "ratio", lambda a, b: Ratio(found, low or found, high or found)
        )
        monkeypatch.setattr(
            _left_in_float,
            "time_interleaved",
            lambda subjects, plan: {s.label: SimpleNamespace(ran=s.run()) for s in subjects},
        )
        x = {"x": np.zeros((inputs, 3), np.float32)}
        cost = LeftInFloat(Masters(), PlayedRuntime(), ["graph.lower"], x, store, "net")
        made.append(cost)
        return cost

    made = []
    yield make
    for cost in made:
        cost.close()


def test_it_is_timed_against_the_whole_and_kept(timed):
    cost = timed(1.7)
    assert cost.times(["a"]) == 1.7
    assert cost.masters.asked == [("a",), ()]
    assert cost.times(["a"]) == 1.7
    assert cost.masters.asked == [("a",), ()]
    assert timed(9.9).times(["a"]) == 1.7  # of another run of the study


@pytest.mark.parametrize(
    ("found", "high", "expected"),
    [(0.8, 0.9, 0.8), (0.8, 1.1, 1 + LEAST), (1.001, 1.002, 1 + LEAST)],
)
def test_what_may_be_noise_costs_a_little(timed, found, high, expected):
    assert timed(found, high=high).times(["a"]) == expected


def test_another_batch_is_timed_anew(timed):
    assert timed(1.5).times(["a"]) == 1.5
    assert timed(1.6, inputs=8).times(["a"]) == 1.6


def test_all_sessions_are_closed(timed):
    cost = timed(1.5)
    cost.times(["a"])
    cost.close()
    assert [s.closed for s in cost.runtime.sessions] == [True, True]
    cost.close()


def test_what_the_engine_puts_back_into_int8_can_not_be_left(timed):
    cost = timed(1.5)
    cost.runtime.obeys = False
    assert cost.times(["a"]) == math.inf
    assert cost.times(["a"]) == math.inf
    assert len(cost.masters.asked) == 2


def test_what_the_engine_refuses_can_not_be_left(timed):
    cost = timed(1.5)
    cost.runtime.refuses = True
    assert cost.times(["a"]) == math.inf
