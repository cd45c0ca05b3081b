"""Models of a line of numpy, and what a service sees of requests, for rollouts."""

from types import SimpleNamespace

import numpy as np
import pytest

from fettle.core.arrays import TensorSpec
from fettle.monitor.answered import Answered
from fettle.serve._packing import Sizes
from fettle.serve.errors import NotFound, NotReady
from fettle.serve.protocol.signature import Signature

SPECS = (TensorSpec("x", "float32", (-1, 3)),), (TensorSpec("y", "float32", (-1, 3)),)


class Fake:
    """A model that answers with `compute(x)`; `rows` are those that it was asked."""

    def __init__(self, sha, compute=lambda x: x, sizes=(), **signature):
        self.sha, self.version, self.path = sha, "1", f"/{sha}"
        self.compute, self.rows = compute, []
        self.warm = SimpleNamespace(sizes=Sizes(tuple(sizes)))
        self.signature = Signature(*SPECS, **signature)

    def run(self, inputs):
        self.rows.append(len(inputs["x"]))
        return {"y": self.compute(inputs["x"])}


class Shelf:
    """What finds a model, as a repository does; without one, it isn't ready."""

    def __init__(self, model, name="m"):
        self.name = name
        self.put(model)

    def put(self, model):
        self.served = SimpleNamespace(model=model) if model else None

    def find(self, name, version=None):
        if name != self.name or version not in (None, "", "1"):
            raise NotFound("none")
        if self.served is None:
            raise NotReady("not yet")
        return self.served


@pytest.fixture
def fake():
    return Fake


@pytest.fixture
def shelf():
    return Shelf


@pytest.fixture
def seen():
    """Make what a service saw of one request: scores whose largest is at `top`."""

    def make(number=0, top=0, **changes):
        x = np.eye(3, dtype=np.float32)[[top]]
        same = Answered(
            f"r{number}", number, "m", "1", "one", "only", "", "rest", (0.0, 0.001, 1), 0.002,
            {"x": x}, {"y": x},
        )  # fmt: skip
        return same._replace(**changes)

    return make
