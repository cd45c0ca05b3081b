"""From arrays of unknown quality to examples that can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from fettle.core.errors import DataError
from fettle.tasks._data import ArrayExamples, Data, Layout, Preprocessing, no_labels

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
        y: class of each example, shape (n,), or values, (n,) or (n, k); None: there are no labels.
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
    count, parts = labelled_alike(parts, classes or len(labels) or None)
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


def check_labels(y: Any, name: str, n: int) -> np.ndarray:
    """Return the labels of `n` examples: classes as int64 (n,), values as float64 (n,) or (n, k).

    Without labels, `y` is None, and what comes back has shape (n, 0).

    Raises:
        DataError: they are neither, or hold NaN or infinity.
    """
    array = no_labels(n) if y is None else np.asarray(y)
    if array.ndim not in (1, 2) or _is_one_hot(array):
        raise DataError(
            f"`{name}` expects one class number an example, shape (n,), or values, (n,) or (n, k),"
            f" got {list(array.shape)}; for one-hot rows give `y.argmax(1)`"
        )
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise DataError(
            f"`{name}` expects whole numbers 0 … classes - 1, or finite floats where a value is to"
            f" be predicted; got {array.dtype}, or NaN or infinity"
        )
    whole = array.ndim == 1 and np.array_equal(array, np.trunc(array))
    return array.astype(np.int64 if whole else np.float64)


def labelled_alike(
    parts: Mapping[str, ArrayExamples], classes: int | None
) -> tuple[int, dict[str, ArrayExamples]]:
    """Return the number of classes, 0 where labels are no classes, and parts of one kind of label.

    Raises:
        DataError: one part has labels that another lacks, or a class is negative or too large.
    """
    shapes = {part.y.shape[1:] for part in parts.values()}
    if len(shapes) > 1:
        raise DataError("train and test examples were expected to have labels of the same shape")
    if all(part.y.dtype.kind == "i" for part in parts.values()):
        return check_classes({k: part.y for k, part in parts.items()}, classes), dict(parts)
    return 0, {k: replace(part, y=part.y.astype(np.float64)) for k, part in parts.items()}


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


def _is_one_hot(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.shape[1] > 1 and bool(((array == 0) | (array == 1)).all())


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
    inputs = check_inputs(x, f"{name}x")
    targets = check_labels(y, f"{name}y", len(inputs))
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
