"""A canary: who answers, what is counted, and what becomes of it."""

from asyncio import CancelledError

import numpy as np
import pytest
from tests.serve.rollout.waiting import until

from fettle.monitor._exposition import exposition
from fettle.monitor.answered import predictions
from fettle.monitor.sequential import Tally
from fettle.serve.errors import Conflict
from fettle.serve.protocol.request import InferRequest
from fettle.serve.rollout._mirror import MirrorLimits
from fettle.serve.rollout._trial import Limits
from fettle.serve.rollout.canary import Canary
from fettle.serve.rollout.decisions import Decisions
from fettle.serve.rollout.split import Split

LIMITS = Limits((0.2, 0.5), least=10)
ALL = MirrorLimits(sample=1.0, busy=1.0, most=100_000)
REQUEST = InferRequest("", {})


class Run:
    """A canary between two models, with callers of its own."""

    def __init__(self, shelf, models, limits, decisions, record):
        self.places = [shelf(model) for model in models]
        finds = tuple(place.find for place in self.places)
        split = Split("m", *finds, 0.0, "salt", ("primary", "canary"))
        self.canary = Canary(split, finds, limits, ALL, decisions, record=record)

    def ask(self, count, make):
        """Let callers ask; return who answered them."""
        parts = []
        for number in range(count):
            chosen = self.canary.choose("m", None, f"user-{number}", REQUEST)
            parts.append(chosen.part)
            model = chosen.served.model
            outputs = model.run(make().inputs)
            self.canary.tell(make(number, route=chosen.part, sha=model.sha, outputs=outputs))
        until(lambda: self.canary.mirror.done == self.canary.mirror.taken)
        return parts


@pytest.fixture
def run(shelf, fake):
    made = []

    def make(canary=None, limits=LIMITS, decisions=None, record=None):
        models = fake("one"), canary or fake("two")
        made.append(Run(shelf, models, limits, decisions or Decisions(), record))
        return made[-1]

    yield make
    for each in made:
        each.canary.close(0.5)


def kinds(run):
    return [decision.decision for decision in run.canary.decisions.recent]


def test_before_a_trial_the_primary_answers_all(run, seen):
    assert set(run().ask(50, seen)) == {"primary"}


def test_a_good_one_goes_all_the_way(run, seen):
    r = run()
    begun = r.canary.tick()
    assert (begun.decision, begun.before, begun.after) == ("start", 0.0, 0.2)
    shares = []
    for _ in range(3):
        for _ in range(12):
            parts = r.ask(1000, seen)
            if r.canary.tick():
                break
        shares.append(parts.count("canary") / 1000)
    assert kinds(r) == ["start", "promote", "complete"]
    assert shares == pytest.approx([0.2, 0.5, 1.0], abs=0.05)
    assert r.canary.status()["state"] == "complete"


def test_one_that_answers_otherwise_is_rolled_back(run, seen, fake):
    r = run(fake("two", lambda x: np.roll(x, 1, axis=1)))
    r.canary.tick()
    r.ask(200, seen)
    decision = r.canary.tick()
    assert (decision.decision, decision.before, decision.after) == ("rollback", 0.2, 0.0)
    assert decision.evidence["disagreement"]["estimate"] == 1.0
    assert set(r.ask(50, seen)) == {"primary"}
    assert r.canary.tick() is None


def test_both_directions_are_compared_and_recorded(run, seen):
    rows = []
    r = run(record=rows.append)
    r.canary.tick()
    parts = r.ask(100, seen)
    assert {row.sha for row in rows} == {"one", "two"}
    assert sum(row.sha == "one" for row in rows) == parts.count("canary")
    assert {row.route for row in rows} == {"shadow"}


def test_one_that_fails_is_rolled_back(run, seen):
    r = run()
    r.canary.tick()
    for number in range(100):
        error = RuntimeError("broke") if number % 2 else None
        outputs = None if error else seen().outputs
        r.canary.tell(seen(number, route="primary"))
        r.canary.tell(seen(number, route="canary", sha="two", error=error, outputs=outputs))
    decision = r.canary.tick()
    assert decision.decision == "rollback"
    assert decision.evidence["errors"]["hits"] == 50


def test_one_that_is_slow_is_rolled_back(run, seen):
    r = run(limits=Limits((0.2,), p99_s=0.05))
    r.canary.tick()
    for number in range(50):
        r.canary.tell(seen(number, route="canary", sha="two", total_s=0.01 + 0.1 * (number > 30)))
    decision = r.canary.tick()
    assert decision.decision == "rollback"
    assert decision.evidence["p99"]["hits"] == 19


def test_a_canary_that_fails_where_the_primary_does_not_disagrees(run, seen, fake):
    def fail(x):
        raise RuntimeError

    r = run(fake("two", fail))
    r.canary.tick()
    for number in range(5):
        r.canary.tell(seen(number, route="primary"))
    until(lambda: r.canary.mirror.done == 5)
    assert r.canary._trial.disagreement == Tally(5, 5)


def test_a_primary_that_fails_where_the_canary_does_not_says_nothing(run, seen):
    r = run()
    r.places[0].served.model.compute = lambda x: 1 / 0
    r.canary.tick()
    r.canary.tell(seen(route="canary", sha="two"))
    until(lambda: r.canary.mirror.done == 1)
    assert r.canary._trial.disagreement.n == 0


def test_another_shape_disagrees(run, seen, fake):
    r = run(fake("two", lambda x: x[:, :2]))
    r.canary.tick()
    r.canary.tell(seen(route="primary"))
    until(lambda: r.canary.mirror.done == 1)
    assert r.canary._trial.disagreement == Tally(1, 1)


@pytest.mark.parametrize(
    "changes", [{"model": "n"}, {"route": "only"}, {"sha": "old"}, {"error": CancelledError()}]
)
def test_what_says_nothing_of_the_trial_is_not_counted(run, seen, changes):
    r = run()
    r.canary.tick()
    outputs = None if "error" in changes else seen().outputs
    r.canary.tell(seen(**{"route": "primary", "outputs": outputs, **changes}))
    assert r.canary._trial.base.n == r.canary.mirror.taken == 0


def test_a_bundle_that_was_replaced_starts_anew_and_answers_nobody_before(run, seen, fake):
    r = run()
    r.canary.tick()
    r.ask(200, seen)
    r.places[1].put(fake("three"))
    assert set(r.ask(50, seen)) == {"primary"}
    decision = r.canary.tick()
    assert (decision.decision, decision.canary, decision.after) == ("restart", "three", 0.2)
    assert "canary" in r.ask(50, seen)
    assert r.canary._trial.disagreement.n == 50


def test_while_one_is_not_ready_nothing_is_decided(run, seen):
    r = run()
    r.canary.tick()
    r.places[1].put(None)
    assert r.canary.tick() is None
    assert set(r.ask(20, seen)) == {"primary"}


def test_one_that_does_not_fit_is_refused(run, seen, fake):
    r = run(fake("two", max_batch=2))
    decision = r.canary.tick()
    assert (decision.decision, decision.after) == ("refuse", 0.0)
    assert "batches" in decision.reason
    assert set(r.ask(50, seen)) == {"primary"}
    assert r.canary.tick() is None


def test_after_a_restart_it_goes_on_where_it_stopped(run, seen, tmp_path):
    r = run(decisions=Decisions(tmp_path / "d"))
    r.canary.tick()
    for _ in range(10):
        r.ask(1000, seen)
        if r.canary.tick():
            break
    again = run(decisions=Decisions(tmp_path / "d"))
    decision = again.canary.tick()
    assert (decision.decision, decision.step, decision.after) == ("resume", 1, 0.5)
    assert again.canary._trial.disagreement.n == 0
    assert run(decisions=Decisions(tmp_path / "d")).canary.tick().after == 0.5


def test_after_a_restart_what_was_rolled_back_stays_so(run, seen, fake, tmp_path):
    bad = fake("two", lambda x: -x)
    r = run(bad, decisions=Decisions(tmp_path / "d"))
    r.canary.tick()
    r.ask(100, seen)
    assert r.canary.tick().decision == "rollback"
    for _ in range(2):
        decision = (again := run(bad, decisions=Decisions(tmp_path / "d"))).canary.tick()
        assert (decision.decision, decision.after) == ("rollback", 0.0)
        assert decision.reason.count("rolled back before") == 1
    assert set(again.ask(50, seen)) == {"primary"}


def test_its_own_thread_decides(run, seen, fake):
    r = run(fake("two", lambda x: -x))
    r.canary.start()
    r.ask(100, seen)
    until(lambda: kinds(r)[-1] == "rollback")
    r.canary.close()
    assert not r.canary._thread.is_alive()
    assert r.canary.failed == 0


def test_trouble_does_not_end_its_thread(run, monkeypatch):
    r = run()
    r.canary.start()
    tick, calls = r.canary.tick, []

    def fail():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError
        return tick()

    monkeypatch.setattr(r.canary, "tick", fail)
    until(lambda: len(calls) > 1)
    assert r.canary.failed == 1


def test_a_row_tells_it_too(run, seen):
    r, request = run(), seen(route="primary")
    r.canary.tick()
    r.canary.seen(predictions([request])[0], request.inputs, request.outputs)
    assert r.canary._trial.base.n == 1


def test_status_and_metrics(run, seen):
    r = run()
    assert r.canary.status()["share"] == 0.0
    r.canary.tick()
    r.ask(20, seen)
    status = r.canary.status()
    assert (status["state"], status["step"], status["share"]) == ("running", 0, 0.2)
    assert status["last"]["decision"] == "start"
    assert status["evidence"]["disagreement"]["n"] == 20
    r.canary.note()
    told = exposition(r.canary.families())
    assert 'fettle_canary_share{model="m"} 0.2' in told
    assert 'fettle_canary_bound{model="m",measure="disagreement",bound="limit"} 0.05' in told


def test_a_person_promotes_and_the_evidence_still_rolls_back(run, seen, fake):
    r = run(fake("two", lambda x: np.roll(x, 1, axis=1)))
    r.canary.tick()
    decision = r.canary.promote("it looks good")
    assert (decision.decision, decision.before, decision.after) == ("promote", 0.2, 0.5)
    assert decision.reason == "by hand: it looks good"
    assert set(decision.evidence) == {"disagreement", "errors"}
    assert r.canary.promote().decision == "complete"
    with pytest.raises(Conflict, match="answers all callers already"):
        r.canary.promote()
    assert set(r.ask(50, seen)) == {"canary"}
    assert r.canary.tick().decision == "rollback"
    assert set(r.ask(10, seen)) == {"primary"}


def test_a_person_rolls_back_for_good(run, seen):
    r = run()
    with pytest.raises(Conflict, match="isn't ready"):
        r.canary.rollback("too early")
    r.canary.tick()
    decision = r.canary.rollback("a complaint")
    assert (decision.decision, decision.after) == ("rollback", 0.0)
    assert set(r.ask(50, seen)) == {"primary"}
    assert r.canary.tick() is None
    with pytest.raises(Conflict, match="rolled back"):
        r.canary.promote()
    assert [(d.decision, d.reason) for d in r.canary.decisions.recent][-1] == (
        "rollback",
        "by hand: a complaint",
    )
