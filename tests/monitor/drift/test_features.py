"""Columns of arrays: each summary against its formula, and what has none."""

import ml_dtypes
import numpy as np
import pytest
from scipy import ndimage

from fettle.monitor.answered import tops_of
from fettle.monitor.drift.features import (
    bundle_columns,
    class_names,
    columns_of,
    confidences,
    summarized,
)

RANDOM = np.random.default_rng(0)


def test_images():
    images = RANDOM.normal(0.3, 2, (5, 3, 8, 9)).astype(np.float32)
    found = summarized("x", images)
    one = images[2].astype(np.float64)
    assert found["x mean"][2] == pytest.approx(one.mean())
    assert found["x deviation"][2] == pytest.approx(one.std())
    assert found["x mean of channel 1"][2] == pytest.approx(one[1].mean())
    assert found["x deviation of channel 2"][2] == pytest.approx(one[2].std())
    low, high = np.quantile(one, (0.05, 0.95))
    assert found["x contrast"][2] == pytest.approx(high - low)
    laplacian = [ndimage.laplace(channel)[1:-1, 1:-1] for channel in one]
    assert found["x sharpness"][2] == pytest.approx(np.abs(laplacian).mean() / one.std())


def test_blur_lowers_sharpness_and_brightness_does_not():
    image = RANDOM.normal(0, 1, (1, 1, 16, 16))
    plain = summarized("x", image)["x sharpness"]
    assert summarized("x", ndimage.gaussian_filter(image, 1))["x sharpness"] < plain
    assert summarized("x", 3 * image + 2)["x sharpness"] == pytest.approx(plain)


def test_a_flat_image_has_no_sharpness():
    assert summarized("x", np.ones((2, 1, 8, 8)))["x sharpness"].tolist() == [0, 0]


def test_few_numbers_stand_singly_and_many_are_summarized():
    assert list(summarized("x", np.zeros((4, 2)))) == ["x[0]", "x[1]", "x (all)"]
    assert list(summarized("x", np.zeros(4))) == ["x"]
    rows = RANDOM.normal(0, 1, (4, 40))
    found = summarized("x", rows)
    assert found["x largest"].tolist() == rows.max(1).tolist()
    assert found["x (all)"].shape == (4, 40)


def test_tokens_and_classes():
    tokens = np.zeros((2, 20), np.int64)
    tokens[0, :5] = (7, 8, 9, 7, 7)
    found = summarized("x", tokens)
    assert found["x length"].tolist() == [5, 0]
    assert found["x distinct"].tolist() == [4, 1]
    assert summarized("x", np.array([3, 4]))["x"].tolist() == ["3", "4"]


def test_bfloat16_is_a_number_and_text_is_none():
    assert summarized("x", np.ones((2, 3), ml_dtypes.bfloat16))["x[0]"].tolist() == [1, 1]
    assert summarized("x", np.array(["a", "b"], object)) == {}
    assert summarized("x", np.zeros((0, 3))) == {}


def test_scores_tell_what_the_log_tells():
    scores = RANDOM.normal(0, 2, (6, 4)).astype(np.float32)
    scores[3, 1] = np.nan
    tops, confidence = confidences(scores)
    logged = tops_of([{"y": row[None]} for row in scores])
    assert logged[3] is None
    assert np.isnan(tops[3])
    for at in (0, 1, 2, 4, 5):
        assert logged[at] == (tops[at], pytest.approx(confidence[at]))


def test_the_reference_of_a_bundle():
    reference = {"input/x": np.zeros((3, 2)), "output/y": np.eye(3)}
    found = bundle_columns(reference, ("cat", "dog"))
    assert found["class"].tolist() == ["cat", "dog", "2"]
    assert found["confidence"].tolist() == [1, 1, 1]
    assert found["output/y margin"].tolist() == [1, 1, 1]
    assert found["output/y entropy"] == pytest.approx([0, 0, 0])
    assert "class" not in columns_of({}, {"y": np.eye(3)}, tops=False)


def test_classes_without_a_number_have_no_name():
    assert class_names(np.array([1, np.nan, 7]), ("a", "b")).tolist() == ["b", "", "7"]
    assert len(class_names(np.array([]))) == 0
