import gc
import weakref

import numpy as np
import pytest

from fettle.core.errors import InputError
from fettle.measure import _rounds, _timing, latency
from fettle.measure._interference import Reading
from fettle.measure._timing import collector_at_rest, order_of, share_out, time_block
from fettle.measure.latency import (
    Plan,
    Ratio,
    Samples,
    Subject,
    differs,
    median_latency,
    noise,
    ratio,
    summary,
    throughput,
    throughput_interval,
    time_interleaved,
    too_noisy,
    twin_of,
)

MS = 1_000_000


class FakeTime:
    """A clock that only the subjects move: time is exact, and the tests are deterministic."""

    def __init__(self, monkeypatch):
        self.now = 0
        self.log = []
        monkeypatch.setattr(_timing, "clock", lambda: self.now)
        quiet = Reading(at=0, busy=0, own=0)
        monkeypatch.setattr(_rounds, "read", lambda: quiet)

    def subject(self, label, ms, **given):
        def run():
            self.now += int(next(costs) * MS)
            self.log.append(label)

        costs = iter(ms) if hasattr(ms, "__next__") else iter(lambda: ms, None)
        return Subject(label, run, **given)


@pytest.fixture
def time(monkeypatch):
    return FakeTime(monkeypatch)


def samples_of(*blocks, batch=1):
    return Samples("s", batch, 1, tuple(np.array(block, dtype=float) for block in blocks))


def test_each_duration_is_that_of_its_run(time):
    subject = time.subject("a", iter([9, 1, 2, 3]))
    np.testing.assert_allclose(time_block(subject.run, 3, settle_seconds=0), [1, 2, 3])


def test_a_block_opens_with_uncounted_runs_until_it_settled(time):
    subject = time.subject("a", iter([4, 4, 4, 1, 1]))
    np.testing.assert_allclose(time_block(subject.run, 2, settle_seconds=0.010), [1, 1])


def test_interleaved_gives_every_subject_every_round(time):
    subjects = [time.subject("a", 1), time.subject("b", 3, batch=8, threads=2)]
    found = time_interleaved(subjects, Plan(seconds=10))
    assert list(found) == ["a", "b"]
    assert len(found["a"].blocks) == len(found["b"].blocks) == 24
    np.testing.assert_allclose(found["b"].ms, 3)
    assert (found["b"].batch, found["b"].threads) == (8, 2)
    assert ratio(found["b"], found["a"]) == Ratio(3, 3, 3)


def test_blocks_alternate_and_change_their_order(time):
    subjects = [time.subject("a", 1), time.subject("b", 1)]
    time_interleaved(subjects, Plan(seconds=1, warmup_seconds=0))
    changes = [
        label for label, before in zip(time.log[1:], time.log, strict=False) if label != before
    ]
    assert len(changes) >= 20
    assert {"a", "b"} == set(changes)


def test_a_drift_of_the_machine_leaves_the_ratio_alone(time):
    """The machine slows by half while timing: the latency says so, the ratio does not."""
    slow = lambda base: (base * (1 + time.now / (8_000 * MS)) for _ in iter(int, 1))  # noqa: E731
    subjects = [time.subject("a", slow(2.0)), time.subject("b", slow(1.0))]
    found = time_interleaved(subjects, Plan(seconds=4))
    assert found["a"].medians[-1] > 1.4 * found["a"].medians[0]
    measured = ratio(found["a"], found["b"])
    assert measured.low <= 2 <= measured.high
    assert measured.value == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("cost_ms", "seconds", "samples"),
    [([0.05, 0.1], 5, 1000), ([0.5, 1], 5, 1000), ([1, 2], 5, 1000), ([1, 50], 10, 1000)],
)
def test_a_thousand_samples_where_they_fit(time, cost_ms, seconds, samples):
    subjects = [time.subject(str(ms), ms, threads=2) for ms in cost_ms]
    found = time_interleaved(subjects, Plan.for_budget(seconds))
    assert len(found[str(cost_ms[0])].ms) >= samples
    assert time.now / MS / 1000 < 1.15 * seconds + 0.2 * len(subjects)


def test_slow_subjects_get_fewer_rounds_but_never_fewer_than_six(time):
    found = time_interleaved([time.subject("a", 300), time.subject("b", 400)], Plan.for_budget(1))
    assert len(found["a"].blocks) == 6
    assert len(found["a"].ms) == 6


def test_cheap_subjects_stop_early(time):
    time_interleaved([time.subject("a", 1)], Plan.for_budget(1000))
    assert time.now / MS < 3000


def test_summary_uses_order_statistics_and_no_thin_p99():
    few = summary(samples_of([4, 1, 3, 2], batch=8))
    assert set(few.pop("intervals").values()) == {None}
    assert few == {
        "p50": 2, "p90": 4, "p95": 4, "p99": None, "mean": 2.5, "n": 4, "batch": 8, "threads": 1,
    }  # fmt: skip
    many = summary(samples_of(np.arange(1, 501), np.arange(501, 1001)))
    assert (many["p50"], many["p90"], many["p95"], many["p99"]) == (500, 900, 950, 990)
    assert summary(samples_of(np.arange(999)))["p99"] is None


def test_throughput_counts_examples():
    assert throughput(samples_of([2, 2], [4, 4], batch=6)) == pytest.approx(2000)


def test_median_latency_has_an_interval():
    found = median_latency(samples_of(*([ms] * 3 for ms in range(1, 12))))
    assert (found.value, found.unit, found.better, found.n) == (6, "ms", "lower", 33)
    assert found.low < 6 < found.high


def test_every_shown_number_has_an_interval_that_holds_it():
    rng = np.random.default_rng(0)
    samples = samples_of(*rng.lognormal(sigma=0.1, size=(24, 100)))
    found = summary(samples)
    for name, (low, high) in found["intervals"].items():
        assert low <= found[name] <= high
    low, high = throughput_interval(samples)
    assert low <= throughput(samples) <= high
    assert throughput_interval(samples_of([1, 2])) is None


class Sessions:
    """An artifact each of whose sessions has a cost of its own."""

    def __init__(self, time, costs):
        self.time, self.costs, self.built = time, iter(costs), 0

    def build(self):
        self.built += 1
        cost = next(self.costs)
        return lambda: self.time.subject("", cost).run()


def test_sessions_are_rebuilt_between_rounds(time):
    sessions = Sessions(time, [1, 2, 3, 4, 5, 6])
    subjects = [Subject("a", sessions.build(), rebuild=sessions.build), time.subject("b", 1)]
    found = time_interleaved(subjects, Plan(seconds=5, warmup_seconds=0))
    assert sessions.built == 6
    assert found["a"].builds == tuple(np.repeat(range(6), len(found["a"].blocks) // 6))
    assert found["b"].builds == ()
    for build, block in zip(found["a"].builds, found["a"].blocks, strict=True):
        np.testing.assert_allclose(block, build + 1)
    assert ratio(found["a"], found["b"]).value == pytest.approx(np.prod(range(1, 7)) ** (1 / 6))


def test_luck_of_the_session_is_no_difference(time, monkeypatch):
    """A/A with sessions that differ by 5 %: rebuilt, at most 7 % claim; one each, most do."""
    monkeypatch.setattr(_rounds.gc, "collect", int)  # takes its time under pytest
    rng = np.random.default_rng(0)
    plan = Plan(seconds=0.1, samples=24, block_runs=1, block_seconds=0, warmup_seconds=0)

    def claims(rebuilt):
        makers = [Sessions(time, iter(lambda: rng.lognormal(sigma=0.05), None)) for _ in "ab"]
        subjects = [
            Subject(label, maker.build(), rebuild=maker.build if rebuilt else None)
            for label, maker in zip("ab", makers, strict=True)
        ]
        found = time_interleaved(subjects, plan)
        return differs(ratio(found["a"], found["b"]))

    assert np.mean([claims(rebuilt=True) for _ in range(100)]) <= 0.07 + 2 * 0.022
    assert np.mean([claims(rebuilt=False) for _ in range(10)]) > 0.5


def test_a_difference_must_pass_the_floor():
    assert differs(Ratio(1.05, 1.04, 1.06))
    assert differs(Ratio(0.95, 0.94, 0.96), noise=Ratio(1, 0.97, 1.02))
    assert not differs(Ratio(1.05, 1.04, 1.06), noise=Ratio(1, 0.93, 1.02))
    assert not differs(Ratio(1.05, 0.99, 1.10))
    assert not differs(Ratio(1, 1, 1))
    assert Ratio(1, 0.5, 1.1).stray == 2


def test_the_twin_has_a_session_of_its_own(time):
    sessions = Sessions(time, iter(lambda: 1, None))
    subject = Subject("a", sessions.build(), rebuild=sessions.build)
    twin = twin_of(subject)
    assert (twin.label, sessions.built) == ("a (again)", 2)
    assert twin.run is not subject.run


def test_builds_fit_the_time():
    assert Plan.for_budget(10).builds == 6
    assert Plan.for_budget(10, build_seconds=1).builds == 5
    assert Plan.for_budget(10, build_seconds=60).builds == 4
    for wrong in (2, 7):
        with pytest.raises(InputError, match="builds"):
            Plan(builds=wrong)


def test_a_ratio_needs_one_call(time):
    with pytest.raises(InputError, match="one call"):
        ratio(samples_of([1], [1]), samples_of([1]))


def test_noise_is_the_subject_against_itself(time):
    assert noise(time.subject("a", 1), Plan(seconds=1)) == Ratio(1, 1, 1)
    assert twin_of(time.subject("a", 1)).label == "a (again)"


def test_too_noisy_says_what_it_means():
    assert too_noisy(Ratio(1.0, 0.98, 1.03)) is None
    message = too_noisy(Ratio(1.0, 0.9, 1.03))
    assert message is not None
    assert "noisy" in message
    assert "10%" in message
    assert too_noisy(Ratio(1.0, 0.98, 1.03), limit=0.01)


def test_wrong_subjects_and_plans_are_refused(time):
    one = time.subject("a", 1)
    for wrong in ([], [one, one]):
        with pytest.raises(InputError, match="distinct labels"):
            time_interleaved(wrong)
    with pytest.raises(InputError, match="batch"):
        Subject("a", print, batch=0)
    with pytest.raises(InputError, match="rounds"):
        Plan(rounds=5)
    for wrong in ({"seconds": -1}, {"patience": -1}):
        with pytest.raises(InputError, match="negative"):
            Plan(**wrong)


def test_what_a_subject_raises_passes_and_the_collector_comes_back():
    def fails():
        raise ValueError("engine")

    with pytest.raises(ValueError, match="engine"):
        time_interleaved([Subject("a", fails)])
    assert gc.isenabled()


def test_the_collector_rests_while_timing(time):
    seen = []
    time_interleaved(
        [Subject("a", lambda: (seen.append(gc.isenabled()), time.subject("", 1).run()))],
        Plan(seconds=0.1, warmup_seconds=0),
    )
    assert seen
    assert not any(seen)
    gc.disable()
    try:
        with collector_at_rest():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture(params=[False, True])
def frozen(request):
    """Whether a program set aside what it had, as servers do before they fork."""
    before = gc.get_freeze_count()
    (gc.freeze if request.param else gc.unfreeze)()
    yield request.param
    (gc.freeze if before else gc.unfreeze)()


def test_collecting_while_timing_looks_at_what_is_new_alone(frozen):
    class Held:
        pass

    with collector_at_rest(), collector_at_rest():
        assert gc.get_freeze_count() > 0
        held = Held()
        held.itself, gone = held, weakref.ref(held)
        del held
        gc.collect()
        assert gone() is None
    assert (gc.get_freeze_count() > 0) == frozen


def test_the_order_is_fair():
    turns = [order_of(3, turn) for turn in range(6)]
    assert turns[:2] == [[0, 1, 2], [2, 1, 0]]
    for place in range(3):
        assert sorted(turn[place] for turn in turns) == [0, 0, 1, 1, 2, 2]


def test_sharing_serves_the_small_first():
    assert share_out(10, [1, 100, 100]) == [1, 4.5, 4.5]
    assert share_out(10, [1, 2, 3]) == [1, 2, 3]
    assert share_out(0, [1, 2]) == [0, 0]


def test_the_real_clock_runs_too():
    found = time_interleaved([Subject("a", lambda: sum(range(100)))], Plan(seconds=0.1))
    assert (found["a"].ms > 0).all()
    assert latency.summary(found["a"])["n"] == len(found["a"].ms)
    assert found.interference.rounds == len(found["a"].blocks)
