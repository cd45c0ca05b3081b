"""From arrays of unknown quality to examples that can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from fettle.core.errors import DataError
from fettle.tasks._data import ArrayExamples, Data, Layout, Preprocessing

CHANNELS = (1, 3, 4)


def data_of(
    x: Any,
    y: Any,
    test: tuple[Any, Any] | None = None,
    *,
    classes: int | None = None,
    layout: str = "auto",
    labels: tuple[str, ...] = (),
    normalise: tuple[tuple[float, ...], tuple[float, ...]] = ((0.5,), (0.5,)),
) -> Data:
    """Return arrays as data, once they are found to be sound.

    Integers are images of 0 … 255 and are scaled to 0 … 1, then normalised; floats are taken as
    they are, in any shape.

    Args:
        x: integers (n, h, w), (n, h, w, c) or (n, c, h, w), or floats (n, …).
        y: class of each example, shape (n,).
        test: the same of the source's own test set.
        classes: how many there are; the largest label says, when this isn't given.
        layout: of integer images: `nhwc`, `nchw`, or `auto` (see `guess_layout`).
        labels: names of the classes.
        normalise: mean and standard deviation of integer images, after scaling to 0 … 1.

    Raises:
        DataError: of the wrong shape, or invalid.
    """
    pairs = {"": (x, y)} if test is None else {"train ": (x, y), "test ": test}
    parts = {name: _examples(*pair, name) for name, pair in pairs.items()}
    alike = {(part.shape, part.x.dtype.name) for part in parts.values()}
    if len(alike) > 1:
        raise DataError(f"train and test examples were expected to be alike, got {sorted(alike)}")
    count = check_classes({k: part.y for k, part in parts.items()}, classes or len(labels) or None)
    pool, *rest = parts.values()
    preprocessing = _preprocessing(pool, layout, normalise)
    return Data(pool, count, rest[0] if rest else None, preprocessing, labels)


def check_inputs(x: Any, name: str) -> np.ndarray:
    """Return `x` as uint8 or float32.

    Raises:
        DataError: it holds objects, NaN or infinity, integers outside 0 … 255, or is empty.
    """
    array = np.asarray(x)
    if array.ndim < 2 or 0 in array.shape:
        raise DataError(
            f"`{name}` expects examples of shape (n, …), none of it empty, got {list(array.shape)}"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu":
        return _as_bytes(array, name)
    if array.dtype.kind != "f":
        raise DataError(f"`{name}` expects uint8 or float values, got {array.dtype}; convert them")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32, copy=False)
    check_finite(narrow, name)
    return narrow


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise DataError when `array` (n, …) holds NaN or infinity."""
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"`{name}` holds {int(bad.sum())} values that are NaN or infinite (as float32), the"
            f" first at index {list(where)}; mend or drop those examples"
        )


def check_labels(y: Any, name: str) -> np.ndarray:
    """Return `y` as int64, shape (n,).

    Raises:
        DataError: it is no row of whole numbers from 0 on.
    """
    array = np.asarray(y)
    if array.ndim != 1:
        raise DataError(
            f"`{name}` expects one class number an example, shape (n,), got {list(array.shape)};"
            " for one-hot rows give `y.argmax(1)`"
        )
    if array.dtype.kind not in "iuf" or not np.array_equal(array, np.trunc(array)):
        raise DataError(f"`{name}` expects whole numbers 0 … classes - 1, got {array.dtype} values")
    return array.astype(np.int64)


def check_classes(targets: Mapping[str, np.ndarray], classes: int | None) -> int:
    """Return the number of classes.

    Raises:
        DataError: a label is negative, or not below `classes`.
    """
    count = classes or 1 + max(int(y.max(initial=0)) for y in targets.values())
    for name, y in targets.items():
        bad = np.flatnonzero((y < 0) | (y >= count))
        if len(bad):
            raise DataError(
                f"`{name}y` expects labels 0 … {count - 1}, got {int(y[bad[0]])} at index"
                f" {int(bad[0])} ({len(bad)} such); relabel them, or give the number of classes"
            )
    return count


def guess_layout(shape: tuple[int, ...]) -> Layout:
    """Return the layout of images of `shape`, without the batch axis.

    The channels are the axis of size 1, 3 or 4; when both ends are, or neither is, the last
    (`nhwc`). A leading 1 is the exception: it is always the channel axis.
    """
    first = shape[0] in CHANNELS and shape[-1] not in CHANNELS
    return "nchw" if first or shape[0] == 1 else "nhwc"


def _as_bytes(array: np.ndarray, name: str) -> np.ndarray:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise DataError(
            f"`{name}` of {array.dtype} expects pixel values 0 … 255, got {low} … {high}; give"
            " floats when the values are no pixels"
        )
    return array.astype(np.uint8)


def _preprocessing(
    examples: ArrayExamples, layout: str, normalise: tuple[tuple[float, ...], tuple[float, ...]]
) -> Preprocessing:
    if examples.x.dtype != np.uint8:
        return Preprocessing()
    order = guess_layout(examples.shape) if layout == "auto" else cast(Layout, layout)
    channels = examples.shape[0 if order == "nchw" else -1]
    mean, std = (_per_channel(numbers, channels) for numbers in normalise)
    return Preprocessing(order, 1 / 255, mean, std)


def _per_channel(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(numbers) not in (1, channels):
        raise DataError(
            f"mean and standard deviation expect 1 or {channels} numbers, got {len(numbers)}"
        )
    return numbers * channels if len(numbers) == 1 else numbers


def _examples(x: Any, y: Any, name: str) -> ArrayExamples:
    inputs, targets = check_inputs(x, f"{name}x"), check_labels(y, f"{name}y")
    if len(inputs) != len(targets):
        raise DataError(
            f"`{name}x` has {len(inputs)} examples but `{name}y` has {len(targets)}; pair them up"
        )
    if inputs.dtype == np.uint8:
        inputs = _with_channels(inputs, name)
    return ArrayExamples(inputs, targets)


def _with_channels(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4:
        return images
    raise DataError(
        f"`{name}x` of integers expects images (n, h, w), (n, h, w, c) or (n, c, h, w), got"
        f" {list(images.shape)}; give token ids by name (`input_ids`), floats for anything else"
    )
