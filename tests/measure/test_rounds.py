import json

import numpy as np
import pytest

from fettle.measure import _timing
from fettle.measure._interference import Reading
from fettle.measure._plan import Plan
from fettle.measure._rounds import Disturbance, Interference, Rounds
from fettle.measure.latency import Subject

MS = 1_000_000


class World:
    """A clock that runs move, and a second processor that others use at chosen times."""

    def __init__(self, monkeypatch, busy=()):
        self.ns, self.busy = 0, busy
        monkeypatch.setattr(_timing, "clock", lambda: self.ns)

    def subject(self, label="a"):
        return Subject(label, self.run)

    def run(self):
        disturbed = any(start <= self.ns / 1e9 < end for start, end in self.busy)
        self.ns += (3 if disturbed else 1) * MS

    def look(self):
        now = self.ns / 1e9
        others = sum(max(0.0, min(now, end) - start) for start, end in self.busy if start < now)
        return Reading(at=now, busy=now + others, own=now)


def rounds_in(world, count=24, **plan):
    """Take `count` rounds of 100 runs, 0.1 s each."""
    setting = Plan(**{"seconds": 2.4, "warmup_seconds": 0, "patience": 1.0, **plan})
    rounds = Rounds([world.subject()], setting, [100], 0, world.look)
    yielded = sum(rounds.take(count))
    assert yielded == count
    return rounds


def test_a_quiet_machine_takes_each_round_once(monkeypatch):
    rounds = rounds_in(World(monkeypatch))
    assert len(rounds.blocks[0]) == len(rounds.builds) == 24
    told = rounds.told()
    assert (told.rounds, told.disturbed, told.repeated, told.warning) == (24, 0, 0, None)


def test_disturbed_rounds_are_taken_again(monkeypatch):
    rounds = rounds_in(World(monkeypatch, busy=[(1.0, 1.6)]))
    told = rounds.told()
    assert told.repeated > 0
    assert told.disturbed == 0
    assert told.warning is None
    np.testing.assert_allclose(np.concatenate(rounds.blocks[0]), 1)
    assert told.record.other_load > 0  # what was thrown away is still told of the whole
    assert rounds.builds == sorted(rounds.builds)


def test_what_never_ends_is_kept_and_told(monkeypatch):
    told = rounds_in(World(monkeypatch, busy=[(0.0, 1e9)])).told()
    assert told.disturbed == told.rounds == 24
    assert 0 < told.repeated < 24
    assert "24 of 24 rounds were disturbed" in told.warning
    assert "other processes" in told.warning
    assert json.loads(json.dumps(told.to_json()))["warning"] == told.warning


def test_no_patience_repeats_nothing(monkeypatch):
    told = rounds_in(World(monkeypatch, busy=[(1.0, 1.6)]), patience=0.0).told()
    assert told.repeated == 0
    assert 0 < told.disturbed < 24


def test_a_spell_too_short_to_judge_is_believed(monkeypatch):
    """Counters step by 10 ms: what lasted 0.1 s can't be told from a step."""
    world = World(monkeypatch, busy=[(0.0, 1e9)])
    rounds = Rounds([world.subject()], Plan(seconds=1, warmup_seconds=0), [4], 0, world.look)
    assert sum(rounds.take(6)) == 6
    assert rounds.told().disturbed == 0


def test_every_build_has_its_rounds(monkeypatch):
    rounds = rounds_in(World(monkeypatch), builds=4)
    assert rounds.builds == [number for number in range(4) for _ in range(6)]


@pytest.mark.parametrize("disturbed", [0, 3])
def test_a_warning_says_how_many(disturbed):
    told = Disturbance(12, disturbed, 2, Interference(), ("somebody",) * disturbed)
    assert bool(told.warning) == bool(disturbed)
