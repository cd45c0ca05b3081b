from __future__ import annotations

import numpy as np
import pytest

from fettle.core.errors import DataError
from fettle.tasks import Preprocessing
from fettle.tasks._arrays import check_inputs, data_of, guess_layout

Y = np.arange(40) % 4


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((32, 32, 3), "nhwc"),
        ((3, 32, 32), "nchw"),
        ((1, 28, 28), "nchw"),
        ((28, 28, 1), "nhwc"),
        ((4, 9, 9), "nchw"),
        ((3, 9, 3), "nhwc"),
        ((1, 9, 3), "nchw"),
    ],
)
def test_channels_are_found_by_the_documented_rule(shape, layout):
    assert guess_layout(shape) == layout


def test_grey_images_get_a_channel_axis():
    data = data_of(images(8, 9), Y)
    assert data.pool.shape == (1, 8, 9)
    assert data.preprocessing == Preprocessing("nchw", 1 / 255, (0.5,), (0.5,))


def test_whole_pixels_of_other_types_become_bytes():
    raw = images(5, 5, 3)
    data = data_of(raw.astype(np.int64), Y)
    assert data.pool.take(np.arange(40)).dtype == np.uint8
    np.testing.assert_array_equal(data.pool.take(np.arange(40)), raw)


def test_floats_are_taken_as_they_are():
    x = np.random.default_rng(0).normal(size=(40, 1, 49, 10))
    data = data_of(x, Y)
    out = data.preprocessing.normalise(data.preprocessing.arrange(data.pool.take(np.arange(40))))
    np.testing.assert_array_equal(out, x.astype(np.float32))


def test_normalisation_is_the_documented_formula():
    raw = images(4, 6, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    how = Preprocessing("nhwc", 1 / 255, mean, std)
    wanted = ((raw / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    got = how.normalise(how.arrange(raw))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_classes_come_from_the_labels_or_are_given():
    assert data_of(images(3, 3), Y).classes == 4
    assert data_of(images(3, 3), Y, classes=12).classes == 12
    assert data_of(images(3, 3), Y, (images(3, 3), Y + 3)).classes == 7


def with_nan():
    x = np.zeros((40, 3), np.float32)
    x[7, 2], x[9, 0] = np.nan, np.inf
    return x


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (with_nan(), Y, r"2 values that are NaN or infinite.*\[7, 2\]"),
        (np.full((40, 2), 1e300), Y, "80 values that are NaN or infinite"),
        (images(3, 3), Y[:30], "40 examples but `y` has 30"),
        (images(3, 3).astype(object), Y, "got object"),
        (images(3, 3).astype(np.int32) + 9, Y, r"pixel values 0 … 255"),
        (images(3, 3, 3, 3), Y, r"got \[40, 3, 3, 3, 3\]"),
        (np.zeros(40), Y, r"got \[40\]"),
        (np.zeros((0, 3)), Y[:0], r"got \[0, 3\]"),
        (images(3, 3), Y - 1, "got -1 at index 0 .10 such"),
        (images(3, 3), np.full(40, np.nan), "whole numbers"),
        (images(3, 3), np.eye(4)[Y], r"argmax"),
        (images(3, 3), np.array(["a"] * 40), "whole numbers"),
    ],
)
def test_unsound_arrays_are_refused(x, y, message):
    with pytest.raises(DataError, match=message):
        data_of(x, y)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(DataError, match=r"0 … 2, got 3 at index 3"):
        data_of(images(3, 3), Y, classes=3)
    with pytest.raises(DataError, match="test y"):
        data_of(images(3, 3), Y, (images(3, 3), Y + 1), classes=4)


def test_train_and_test_must_be_alike():
    with pytest.raises(DataError, match="alike"):
        data_of(images(3, 3), Y, (images(4, 4), Y))


def test_inputs_that_are_sound_are_not_copied():
    x = images(3, 3)
    assert check_inputs(x, "x") is x
