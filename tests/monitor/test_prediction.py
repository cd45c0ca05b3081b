"""A row of the log as a value: equal by what it says, whatever arrays it carries."""

import dataclasses

import numpy as np
import pytest

from fettle.monitor.prediction import Prediction


def test_a_prediction_is_a_value_that_can_be_changed_into_another():
    one = Prediction("a", 7, "m", route="primary")
    other = dataclasses.replace(one, route="shadow")
    assert one != other
    assert dataclasses.replace(other, route="primary") == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.route = "b"


def test_rows_with_arrays_can_be_compared_and_shown():
    one = Prediction("a", 7, "m", inputs={"x": np.zeros((1, 3))})
    other = Prediction("a", 7, "m", inputs={"x": np.ones((1, 3))})
    assert one == other
    assert "array" not in repr(one)


@pytest.mark.parametrize(("status", "failed"), [("ok", False), ("Broken", True), ("Late", True)])
def test_all_but_ok_has_failed(status, failed):
    assert Prediction("a", 7, "m", status=status).failed is failed
