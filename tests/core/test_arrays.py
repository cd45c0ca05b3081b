import numpy as np
import pytest

from fettle.core.arrays import Batch, TensorSpec, repeat_to, rows
from fettle.core.errors import InputError

SPEC = TensorSpec("x", "float32", (-1, 3, 8))


@pytest.mark.parametrize("n", [0, 1, 7])
def test_a_free_dimension_takes_any_size(n):
    SPEC.check(np.zeros((n, 3, 8), np.float32))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 3, 9), "f4"), ((3, 8), "f4"), ((2, 3, 8, 1), "f4"), ((2, 3, 8), "f8"), ((), "f4")],
)
def test_other_shapes_and_types_are_refused(shape, dtype):
    with pytest.raises(InputError) as caught:
        SPEC.check(np.zeros(shape, dtype))
    assert "input `x` expects float32 of shape [-1, 3, 8]" in str(caught.value)
    assert str(list(shape)) in str(caught.value)


def test_rows_and_repeat():
    arrays = {"a": np.arange(6).reshape(3, 2), "b": np.arange(3)}
    assert rows(arrays, 1, 3)["a"].tolist() == [[2, 3], [4, 5]]
    assert repeat_to(arrays, 5)["b"].tolist() == [0, 1, 2, 0, 1]
    assert repeat_to(arrays, 4)["a"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert repeat_to(arrays, 2)["b"].tolist() == [0, 1]


def test_a_batch_is_as_long_as_its_targets():
    assert len(Batch({"x": np.zeros((4, 2))}, np.zeros(4))) == 4
