"""A bundle that is served for one request, over real HTTP."""

import numpy as np
import pytest

from fettle.core.errors import CheckFailed
from fettle.serve.once import _refuse_others, ask_once


def test_the_first_golden_example_is_answered(proven):
    asked = ask_once(proven.path)
    assert asked.url.startswith("http://127.0.0.1:")
    assert asked.ms > 0
    (output,) = asked.answer["outputs"]
    expected = proven.golden()[1][output["name"]][:1]
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected, atol=1e-3)
    assert "body" not in asked.to_json()


def test_what_can_not_be_served_is_refused(make_bundle, tmp_path):
    with pytest.raises(CheckFailed, match="--allow-unproven"):
        ask_once(make_bundle(tmp_path / "best", verdict=None).path)


def test_another_answer_than_the_bundle_s_is_told():
    answer = {"outputs": [{"name": "y", "shape": [1, 2], "data": [0.0, 1.0]}]}
    _refuse_others(answer, {"y": np.array([[0.1, 0.9]])})
    with pytest.raises(CheckFailed, match="the bundle holds"):
        _refuse_others(answer, {"y": np.array([[0.9, 0.1]])})
