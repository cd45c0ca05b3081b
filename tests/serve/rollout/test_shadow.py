"""A shadow: what it says of the one that answers."""

import numpy as np
import pytest
from tests.serve.rollout.waiting import until

from fettle.monitor._exposition import exposition
from fettle.monitor.answered import predictions
from fettle.monitor.sequential import proportion
from fettle.serve.rollout._mirror import MirrorLimits
from fettle.serve.rollout.shadow import Shadow

ALL = MirrorLimits(sample=1.0, busy=1.0, most=10_000)


@pytest.fixture
def shadow(shelf):
    """Make shadows of model m, and close them."""
    made = []

    def make(model, **options):
        made.append(Shadow("m", shelf(model).find, options.pop("limits", ALL), **options))
        return made[-1]

    yield make
    for each in made:
        each.close(0.5)


def test_disagreement_is_counted_and_bounds_the_loss(shadow, fake, seen):
    s = shadow(fake("two", lambda x: np.roll(x, x[:, 2].astype(int), axis=1)))  # wrong on class 2
    for number in range(300):
        s.tell(seen(number, top=2 if number < 30 else 0))
    until(lambda: s.mirror.done == 300)
    (found,) = s.status()["compared"]
    expected = proportion(30, 300)
    assert found["disagreement"] == pytest.approx(expected._asdict())
    assert found["accuracy_loss_at_most"] == expected.high
    assert (found["answered"], found["shadow"], found["n"]) == ("one", "two", 300)


def test_answers_are_recorded_beside_the_request_s(shadow, fake, seen):
    rows = []
    s = shadow(fake("two"), record=rows.append)
    s.tell(seen(4))
    until(lambda: rows)
    assert (rows[0].id, rows[0].route, rows[0].sha) == ("r4", "shadow", "two")


def test_other_models_are_not_mirrored(shadow, fake, seen):
    s = shadow(fake("two"))
    s.tell(seen(model="other"))
    assert s.status()["taken"] == 0


def test_what_has_no_classes_bounds_no_accuracy(shadow, fake, seen):
    one = {"x": np.ones((1, 3), np.float32)}
    s = shadow(fake("two", lambda x: 1.01 * x[:, :1]))
    s.tell(seen(1, inputs=one, outputs={"y": np.ones((1, 1), np.float32)}))
    until(lambda: s.mirror.done)
    (found,) = s.status()["compared"]
    assert (found["disagreement"]["estimate"], found["accuracy_loss_at_most"]) == (0.0, None)


def test_failures_and_other_shapes_are_counted_apart(shadow, fake, seen):
    def compute(x):
        if x[0, 1]:
            raise RuntimeError
        return x[:, :2] if x[0, 2] else x

    s = shadow(fake("two", compute))
    for number, top in enumerate((0, 1, 2, 0)):
        s.tell(seen(number, top=top))
    until(lambda: s.mirror.done == 4)
    (found,) = s.status()["compared"]
    assert (found["n"], found["failed"], s.failed) == (2, 2, 2)


def test_a_shadow_that_is_loaded_anew_misses_requests_and_counts_anew(shelf, fake, seen):
    place = shelf(None)
    s = Shadow("m", place.find, ALL)
    try:
        for sha in (None, "two", "three"):
            place.put(fake(sha) if sha else None)
            done = s.mirror.done
            s.tell(seen())
            until(lambda done=done: s.mirror.done == done + 1)
        assert [row["shadow"] for row in s.status()["compared"]] == ["two", "three"]
    finally:
        s.close()


def test_pairs_that_were_are_forgotten(shadow, fake, seen):
    s = shadow(fake("two"))
    for number in range(9):
        s.tell(seen(number, sha=f"one-{number}"))
    until(lambda: s.mirror.done == 9)
    assert [row["answered"] for row in s.status()["compared"]] == [f"one-{n}" for n in (5, 6, 7, 8)]


def test_a_row_tells_it_too(shadow, fake, seen):
    s, request = shadow(fake("two")), seen()
    s.seen(predictions([request])[0], request.inputs, request.outputs)
    until(lambda: s.mirror.done == 1)
    assert s.status()["compared"][0]["n"] == 1


def test_metrics(shadow, fake, seen):
    s = shadow(fake("two"))
    assert 'fettle_shadow_requests_total{model="m",fate="done"} 0' in exposition(s.families())
    s.tell(seen())
    until(lambda: s.mirror.done == 1)
    told = exposition(s.families())
    labels = 'model="m",answered="one",shadow="two"'
    assert f'fettle_shadow_disagreement{{bound="estimate",{labels}}} 0' in told.replace(
        f'{labels},bound="estimate"', f'bound="estimate",{labels}'
    )
    assert f"fettle_shadow_accuracy_loss_bound{{{labels}}}" in told
    assert 'fettle_shadow_hangs{model="m"} 0' in told
