"""Accuracy by labels and by confidence, against independent references."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from fettle.core.errors import InputError
from fettle.monitor.accuracy import calibrated, estimated, fallen, isotonic, measure, moved
from fettle.monitor.drift.sampling import Cut
from fettle.monitor.log import open_log
from fettle.monitor.sequential import proportion

SECOND = 10**9


def sample(seed, n, sharp=1.0):
    """Confidences, and whether answers were right: calibrated where `sharp` is 1."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.5, 1, n)
    right = random.random(n) < truth
    odds = sharp * np.log(truth / (1 - truth + 1e-9))
    return 1 / (1 + np.exp(-odds)), right


def test_the_monotone_map_is_sklearns():
    confidence, right = sample(0, 400)
    confidence = confidence.round(2)
    expected = IsotonicRegression(out_of_bounds="clip").fit(confidence, right)
    at = np.linspace(0.3, 1, 50)
    assert isotonic(confidence, right)(at) == pytest.approx(expected.predict(at))
    with pytest.raises(InputError, match="equal length"):
        isotonic(confidence, right[1:])


def test_confidence_foretells_accuracy_under_covariate_shift():
    """Calibrated on labels, it foretells windows in which hard inputs come more often."""
    confidence, right = sample(1, 20_000, sharp=3.0)
    calibration = isotonic(confidence[:10_000], right[:10_000])
    late, truly = confidence[10_000:], right[10_000:]
    hard = late < np.quantile(late, 0.4)
    assert abs(late[hard].mean() - truly[hard].mean()) > 0.04  # what it says of itself is wrong
    found = estimated(late[hard], calibration)
    assert found["low"] < truly[hard].mean() < found["high"]
    assert found["estimate"] == pytest.approx(truly[hard].mean(), abs=0.02)


def test_without_labels_the_mean_is_moved_to_what_was_proven():
    confidence, _ = sample(2, 500)
    assert moved(confidence, 0.9)(confidence).mean() == pytest.approx(0.9)
    assert moved(confidence, 0.5)(confidence).mean() == pytest.approx(0.5)
    with pytest.raises(InputError, match="0 to 1"):
        moved(confidence, 1.2)


def test_labels_are_counted(make, written):
    rows = [make(at, top=at % 3, confidence=0.8) for at in range(60)]
    labels = [("r0", 0), ("r1", 2), ("r2", "c"), ("r3", "b"), ("r4", "unheard of")]
    with open_log(written(rows, labels)) as log:
        found = measure(log, Cut(seconds=3600, labels=("a", "b", "c")))
    told = found.to_json()
    assert (told["n"], told["labelled"]) == (60, 4)
    assert told["by_labels"] == proportion(2, 4)._asdict()
    assert told["by_confidence"] is None
    assert told["windows"][0]["labelled"] == 4


def test_failures_and_shadows_do_not_answer(make, written):
    rows = [make(0), make(1, status="Broken"), make(2, route="shadow")]
    with open_log(written(rows, [(f"r{at}", 3) for at in range(3)])) as log:
        assert measure(log).to_json()["labelled"] == 1


def test_only_the_bundle_that_is_meant(make, written):
    rows = [make(0, sha="a"), make(1, sha="b")]
    with open_log(written(rows)) as log:
        assert measure(log, Cut(sha="a")).to_json()["n"] == 1
        assert measure(log, Cut(sha="unknown")).to_json()["n"] == 2


def test_what_it_is_calibrated_on(make, written):
    rows = [make(at, top=1, confidence=0.5 + at / 1000) for at in range(300)]
    with open_log(written(rows, [(f"r{at}", at % 2) for at in range(300)])) as log:
        found = measure(log)
    calibration, on = calibrated(found, None, None)
    assert on == "labelled requests"
    told = found.to_json(calibration, on)
    assert told["by_confidence"]["estimate"] == pytest.approx(0.5, abs=0.01)
    found.confidence.clear()
    assert calibrated(found, None, 0.9) == (None, "")
    assert calibrated(found, np.array([np.nan]), 0.9) == (None, "")
    assert "proven" in calibrated(found, np.array([0.7, 0.8]), 0.9)[1]


def test_all_labels_missing_and_an_empty_log(make, written):
    with open_log(written([make(0, confidence=None, top=None)])) as log:
        told = measure(log).to_json()
    assert told["by_labels"] is None
    assert told["by_confidence"] is None
    assert estimated(np.array([np.nan]), lambda values: values) is None


def test_a_fall_is_known_or_it_is_not():
    low, high = {"high": 0.8}, {"high": 0.9}
    assert fallen({"by_labels": low}, 0.9) is True
    assert fallen({"by_labels": high, "by_confidence": low}, 0.9) is False
    assert fallen({"by_confidence": low}, 0.9) is True
    assert fallen({"by_confidence": None}, 0.9) is None
    assert fallen({"by_labels": low}, None) is None
