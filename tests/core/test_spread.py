import numpy as np
import pytest

from fettle.core.spread import watched
from fettle.testing import Recorder


@pytest.mark.parametrize(
    ("values", "said"), [((5.0, 5.0), True), ((5.0, 5.5), False), ((0.0, 0.0), True), ((), False)]
)
def test_an_input_of_one_value_is_told_at_the_end(values, said):
    progress = Recorder()
    ids = np.ones((2, 1), np.int64)  # of which nobody takes a range
    batches = [{"x": np.full((2, 3), v, np.float32), "ids": ids} for v in values]
    found = watched(batches, progress)
    assert [b["x"].mean() for b in found] == list(values)
    assert [line.startswith("the calibration input `x` is") for line in progress.lines] == [
        True
    ] * said
