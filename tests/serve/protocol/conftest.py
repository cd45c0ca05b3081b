"""Models that tests send requests to; none of them is ever run."""

from dataclasses import dataclass

import pytest

from fettle.core.arrays import TensorSpec
from fettle.serve.protocol.datatypes import NUMPY
from fettle.serve.protocol.signature import Signature


@dataclass(frozen=True)
class Few:
    """Limits under which a test reaches the end of the line."""

    tensor_elements: int = 1000


def model_of(*inputs, outputs=(("scores", "float32", (-1, 5)),), **more):
    """Return a signature of (name, type, shape) triples."""
    return Signature(
        tuple(TensorSpec(*each) for each in inputs),
        tuple(TensorSpec(*each) for each in outputs),
        **more,
    )


@pytest.fixture(scope="session")
def images():
    """One input of float32, with a batch of at most 8."""
    return model_of(("image", "float32", (-1, 2, 3)), max_batch=8)


@pytest.fixture(scope="session")
def everything():
    """An input and an output of each type, named as the type is in lower case."""
    specs = [(name.lower(), str(dtype), (-1, 4)) for name, dtype in NUMPY.items()]
    return model_of(*specs, outputs=specs)


@pytest.fixture(scope="session")
def one_of():
    """Return a model with one input of a type of the protocol."""

    def make(datatype, shape=(-1, 4)):
        spec = ("x", str(NUMPY[datatype]), shape)
        return model_of(spec, outputs=[("y", *spec[1:])])

    return make


@pytest.fixture(scope="session")
def few():
    return Few()
