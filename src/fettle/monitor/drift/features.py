"""Columns that drift is looked for in: features, or cheap summaries of what is too large for one.

| of what | columns |
|---|---|
| images, (n, channels, height, width) | mean, deviation, contrast between 5 % and 95 %, sharpness
(mean of the Laplacian's size over the deviation), mean and deviation of each channel |
| up to 16 numbers, (n,) or (n, d) | each as it is |
| longer rows of numbers | mean, deviation, least and largest |
| whole numbers, such as tokens | how many aren't 0, and how many differ |
| scores of classes, the first output | class and confidence of each, entropy, and margin |
| any other (n, d), 2 ≤ d ≤ 4096, and the scores | the rows too, as vectors: embeddings |

Summaries cost microseconds an image and hold nothing by which a person could be known again. What
they don't see, a bundle's own embeddings or scores mostly do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fettle.core.arrays import Arrays

Columns = dict[str, np.ndarray]
_SINGLE = 16
_WIDEST = 4096
_CHANNELS = (1, 3, 4)
_WHOLE = 1e-3


def columns_of(
    inputs: Arrays | None, outputs: Arrays | None, labels: Sequence[str] = (), tops: bool = True
) -> Columns:
    """Return the columns of examples, batch first; names begin with `input/` or `output/`.

    Args:
        inputs: by name; those without numbers are left out.
        outputs: by name.
        labels: names of the classes.
        tops: whether class and confidence are among them: a log has those of all rows itself.
    """
    found: Columns = {}
    for name, array in (inputs or {}).items():
        found |= summarized(f"input/{name}", array)
    for at, (name, array) in enumerate((outputs or {}).items()):
        if at == 0 and _scores(array):
            found |= _answers(f"output/{name}", array, labels if tops else None)
        else:
            found |= summarized(f"output/{name}", array)
    return found


def bundle_columns(reference: Mapping[str, np.ndarray], labels: Sequence[str] = ()) -> Columns:
    """Return the columns of a bundle's `reference.npz`."""
    inputs = {k.removeprefix("input/"): v for k, v in reference.items() if k.startswith("input/")}
    outputs = {k.removeprefix("output/"): v for k, v in reference.items() if k[:7] == "output/"}
    return columns_of(inputs, outputs, labels)


def class_names(tops: np.ndarray, labels: Sequence[str] = ()) -> np.ndarray:
    """Return the names of classes, as text; NaN has the name '', which is none.

    Args:
        tops: their numbers, shape (n,).
        labels: the names; a class without one is told by its number.
    """
    known = np.where(np.isfinite(tops), tops, -1)
    numbers, places = np.unique(known, return_inverse=True)
    names = [_named(float(number), labels) for number in numbers]
    return np.array(names, dtype=str)[places] if names else np.array([], dtype=str)


def confidences(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each row and its probability; NaN where scores aren't finite."""
    rows = probabilities(scores)
    finite = np.isfinite(rows).all(1)
    tops = np.where(finite, np.where(np.isfinite(rows), rows, 0).argmax(1), np.nan)
    return tops, np.where(finite, np.max(rows, axis=1, initial=0), np.nan)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return scores as probabilities, shape (n, classes): by the softmax unless they are."""
    rows = np.asarray(scores, np.float64)
    if not rows.size:
        return rows
    if np.nanmin(rows) >= 0 and np.nanmax(np.abs(rows.sum(1) - 1), initial=0) < _WHOLE:
        return rows
    with np.errstate(invalid="ignore"):  # not finite: told as NaN
        raised = np.exp(rows - rows.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def summarized(name: str, array: np.ndarray) -> Columns:
    """Return the columns of one array; none where it holds no numbers."""
    if array.dtype.kind in "iub":
        return _whole(name, array)
    if array.ndim == 0 or not _numeric(array) or not array.size:
        return {}
    values = array.astype(np.float64)
    if values.ndim == 4 and values.shape[1] in _CHANNELS and min(values.shape[2:]) > 2:
        return _image(name, values)
    rows = values.reshape(len(values), -1)
    found = _rows(name, rows)
    if array.ndim == 2 and 2 <= rows.shape[1] <= _WIDEST:
        found[f"{name} (all)"] = rows
    return found


def _named(number: float, labels: Sequence[str]) -> str:
    if number < 0:
        return ""
    return labels[int(number)] if number < len(labels) else f"{number:g}"


def _scores(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.shape[1] >= 2 and array.dtype.kind == "f"


def _numeric(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _answers(name: str, scores: np.ndarray, labels: Sequence[str] | None) -> Columns:
    rows = probabilities(scores)
    ordered = np.sort(rows, axis=1)
    safe = np.where(rows > 0, rows, 1)
    found = {
        f"{name} entropy": -(np.where(rows > 0, rows, 0) * np.log(safe)).sum(1),
        f"{name} margin": ordered[:, -1] - ordered[:, -2],
    }
    if scores.shape[1] <= _WIDEST:
        found[f"{name} (all)"] = scores.astype(np.float64)
    if labels is not None:
        tops, confidence = confidences(scores)
        found |= {"class": class_names(tops, labels), "confidence": confidence}
    return found


def _image(name: str, images: np.ndarray) -> Columns:
    flat = images.reshape(len(images), -1)
    deviation = flat.std(1)
    low, high = np.quantile(flat, (0.05, 0.95), axis=1)
    inner = images[..., 1:-1, 1:-1]
    around = images[..., :-2, 1:-1] + images[..., 2:, 1:-1]
    around = around + images[..., 1:-1, :-2] + images[..., 1:-1, 2:]
    edges = np.abs(4 * inner - around).reshape(len(images), -1).mean(1)
    sharp = np.divide(edges, deviation, out=np.zeros_like(edges), where=deviation > 0)
    found = {
        f"{name} mean": flat.mean(1),
        f"{name} deviation": deviation,
        f"{name} contrast": high - low,
        f"{name} sharpness": np.where(np.isfinite(edges), sharp, np.nan),
    }
    if images.shape[1] > 1:
        for channel in range(images.shape[1]):
            each = images[:, channel].reshape(len(images), -1)
            found[f"{name} mean of channel {channel}"] = each.mean(1)
            found[f"{name} deviation of channel {channel}"] = each.std(1)
    return found


def _rows(name: str, rows: np.ndarray) -> Columns:
    if rows.shape[1] == 1:
        return {name: rows[:, 0]}
    if rows.shape[1] <= _SINGLE:
        return {f"{name}[{at}]": rows[:, at] for at in range(rows.shape[1])}
    return {
        f"{name} mean": rows.mean(1),
        f"{name} deviation": rows.std(1),
        f"{name} least": rows.min(1),
        f"{name} largest": rows.max(1),
    }


def _whole(name: str, array: np.ndarray) -> Columns:
    if array.ndim == 0 or not array.size:
        return {}
    rows = array.reshape(len(array), -1)
    if rows.shape[1] <= _SINGLE:
        return dict(_singly(name, rows))
    ordered = np.sort(rows, axis=1)
    differ = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    return {
        f"{name} length": (rows != 0).sum(1).astype(np.float64),
        f"{name} distinct": differ.astype(np.float64),
    }


def _singly(name: str, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for at in range(rows.shape[1]):
        yield (name if rows.shape[1] == 1 else f"{name}[{at}]"), rows[:, at].astype(str)
