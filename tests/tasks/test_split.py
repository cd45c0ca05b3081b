from __future__ import annotations

import numpy as np
import pytest

from fettle.core.errors import DataError
from fettle.tasks._split import carve, default_counts

NONE = np.array([], np.uint64)


def test_counts_of_known_data_sets():
    assert default_counts(50_000, True) == {"test": 0, "select": 5000, "calibrate": 512}
    assert default_counts(1797, False) == {"test": 599, "select": 299, "calibrate": 99}
    assert default_counts(60_000, False)["test"] == 10_000


def test_every_split_has_its_share_of_each_class():
    y = np.repeat([0, 1, 2], [500, 300, 200])
    splits = carve(y, np.arange(1000, dtype=np.uint64), {"test": 100, "select": 50}, NONE, 0)
    np.testing.assert_array_equal(np.bincount(y[splits["test"]]), [50, 30, 20])
    np.testing.assert_array_equal(np.bincount(y[splits["select"]]), [25, 15, 10])
    together = np.sort(np.concatenate(list(splits.values())))
    np.testing.assert_array_equal(together, np.arange(1000))


def test_contents_stay_in_one_split():
    digests = np.random.default_rng(0).integers(0, 300, 1000).astype(np.uint64)
    taken = np.arange(0, 40, dtype=np.uint64)
    splits = carve(np.arange(1000) % 5, digests, {"select": 60, "calibrate": 20}, taken, 3)
    seen = [set(digests[rows].tolist()) for rows in splits.values()] + [set(taken.tolist())]
    assert len(set.union(*seen)) == sum(len(part) for part in seen)
    assert len(splits["select"]) == 60
    assert len(splits["train"]) > len(set(digests[splits["train"]].tolist()))


def test_seeds_differ():
    digests = np.arange(200, dtype=np.uint64)
    one, two = (carve(np.arange(200) % 2, digests, {"select": 50}, NONE, s) for s in (0, 1))
    assert not np.array_equal(one["select"], two["select"])


def test_no_room_is_refused():
    with pytest.raises(DataError, match="take 10 of 10 distinct"):
        carve(np.zeros(10, int), np.arange(10, dtype=np.uint64), {"select": 10}, NONE, 0)
