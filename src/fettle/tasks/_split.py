"""Carving a pool into disjoint, stratified splits: by index and by content."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fettle.core.arrays import Split
from fettle.core.errors import DataError

FEWEST = 20
LEAST_PROOF = 600  # two in a hundred may disagree, and a drop of 2 points is still proven
LEAST_TRAINING = 64
_OF_ITS_OWN = (
    ", or a test set of its own (`x_test` in an archive, a folder `test`, a file `test.csv`)"
)


def default_counts(pool: int, has_test: bool) -> dict[Split, int]:
    """Return how many examples to carve, given the distinct contents of the pool.

    A third (at most 10,000) for a missing test set; of what is left a tenth for `select`, more
    when that is under 300, at most a quarter; and a twelfth, at most 512, for `calibrate`.
    """
    test = 0 if has_test else min(pool // 3, 10_000)
    left = pool - test
    select = min(max(left // 10, 300), left // 4)
    return {"test": test, "select": select, "calibrate": min(left // 12, 512)}


def unlabelled_counts(pool: int, has_test: bool) -> dict[Split, int]:
    """Return how many examples to carve where none has a label, given the distinct contents.

    The proof comes first: a drop of a hundredth is proven with 300 examples at the least. So a
    third (at most 10,000) but at least 600, where there are as many, go to `test`; an eighth each
    to `calibrate` (at most 512) and `select` (at most 2,000); the rest to `train`, or to `select`
    when it is too small to train with.
    """
    calibrate, select = min(pool // 8, 512), min(pool // 8, 2_000)
    left = pool - calibrate - select
    test = 0 if has_test else min(max(pool // 3, LEAST_PROOF), 10_000, left)
    rest = left - test
    return {
        "test": test,
        "select": select + (rest if rest < LEAST_TRAINING else 0),
        "calibrate": calibrate,
    }


def carve(
    y: np.ndarray,
    digests: np.ndarray,
    counts: Mapping[Split, int],
    taken: np.ndarray,
    seed: int,
    least: int = 1,
) -> dict[Split, np.ndarray]:
    """Return the indices of each split of `counts` and of `train`, sorted.

    Every content is in one split only: examples of the pool whose content is `taken` are dropped,
    a carved split takes one example of each content, and its twins are dropped. Twins
    that nobody carved stay in `train` together.

    Args:
        y: class of each example of the pool, or another number whose shares are kept, shape (n,).
        digests: content hash of each example of the pool, shape (n,).
        counts: how many examples each split takes.
        taken: content hashes of the source's own test set.
        seed: of the draw.
        least: how many examples are to be left for `train`.

    Raises:
        DataError: there are too few distinct examples.
    """
    rng = np.random.default_rng([seed, len(y)])
    splits: dict[Split, np.ndarray] = {}
    for name, count in counts.items():
        free = _first_of_each(digests, taken)
        _check_room(name, count, len(free), least)
        splits[name] = np.sort(free[_stratified(y[free], count, rng)])
        taken = np.union1d(taken, digests[splits[name]])
    splits["train"] = np.flatnonzero(~np.isin(digests, taken))
    return splits


def _first_of_each(digests: np.ndarray, taken: np.ndarray) -> np.ndarray:
    _, first = np.unique(digests, return_index=True)
    first = np.sort(first)
    return np.asarray(first[~np.isin(digests[first], taken)])


def _stratified(y: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` positions of `y` with its share of each class, by largest remainder."""
    classes, sizes = np.unique(y, return_counts=True)
    exact = count * sizes / len(y)
    quota = np.floor(exact).astype(int)
    largest = np.argsort(quota - exact, kind="stable")
    quota[largest[: count - quota.sum()]] += 1
    picks = [
        rng.permutation(np.flatnonzero(y == label))[:q]
        for label, q in zip(classes, quota, strict=True)
    ]
    return np.concatenate(picks)


def _check_room(name: Split, count: int, free: int, least: int) -> None:
    if not 0 < count <= free - least:
        raise DataError(
            f"the split `{name}` was to take {count} of {free} distinct examples, which"
            f" leaves none for it or none for `train`; give at least {FEWEST} distinct examples, or"
            f" another `{name}`{_OF_ITS_OWN if name == 'test' else ''}"
        )
