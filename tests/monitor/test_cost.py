"""What is saved, from rows of a log that a shadow rode along in."""

import numpy as np
import pytest

from fettle.core.errors import DataError
from fettle.monitor._batch_means import BatchMeans
from fettle.monitor.cost import Prices, ledgers
from fettle.monitor.log import open_log
from fettle.monitor.pairs import shadow_pairs

MINE, ORIGINAL = "a" * 16, "b" * 16


@pytest.fixture
def shadowed(make, written):
    """A log of `n` requests of which each `every`-th was answered again by the original."""

    def build(n=400, every=4, served=100, original=350, batch=2, noise=0.0, failing=0):
        rng = np.random.default_rng(0)
        rows = []
        for at in range(n):
            scale = np.exp(noise * rng.normal()) if noise else 1.0
            taken = round(served * scale) * batch
            rows.append(make(at, sha=MINE, batch=batch, compute_us=taken, top=at % 3))
            if at % every == 0:
                status = "Broken" if at < failing else "ok"
                again = {"sha": ORIGINAL, "route": "shadow", "batch": 1, "status": status}
                taken = round(original * scale)
                rows.append(make(at, compute_us=taken, top=at % 3 if at else 9, **again))
        return written(rows)

    return build


def test_a_request_and_its_second_answer_are_brought_together(shadowed):
    with open_log(shadowed(n=40)) as log:
        (pairs,) = shadow_pairs(log)
    assert pairs.who == ("digits", MINE, ORIGINAL)
    np.testing.assert_allclose(pairs.seconds, [[100e-6, 350e-6]] * 10)
    assert (pairs.top[:, 0] != pairs.top[:, 1]).tolist() == [True] + [False] * 9


def test_requests_that_share_a_time_or_an_id_alone_are_not_taken_for_one(make, written):
    shadow = {"route": "shadow", "sha": ORIGINAL}
    rows = [make(0), make(0, id="another", **shadow), make(5, id="r0", **shadow)]
    with open_log(written(rows)) as log:
        assert list(shadow_pairs(log)) == []


def test_what_is_saved_is_less_what_the_shadow_took(shadowed):
    prices = Prices(currency="EUR", core_hour=3.6, watts=10.0, grams_per_kwh=360.0)
    with open_log(shadowed()) as log:
        (ledger,) = ledgers(log, prices)
    told = ledger.to_json()
    assert (told["predictions"], told["pairs"]) == (400, 100)
    seconds = {name: found["value"] for name, found in told["seconds"].items()}
    assert seconds == pytest.approx(
        {"served": 0.1, "original": 0.35, "saved": 0.25, "shadow": 0.0875, "net": 0.1625,
         "net_in_all": 0.065}
    )  # fmt: skip
    assert told["ratio"]["value"] == pytest.approx(3.5)
    assert told["typical_ratio"] == pytest.approx(3.5, rel=0.01)
    assert told["money"]["net"]["value"] == pytest.approx(0.1625e-3)
    assert told["money"]["currency"] == "EUR"
    assert told["energy_joules"]["net"]["value"] == pytest.approx(1.625)
    assert told["co2_grams"]["net"]["value"] == pytest.approx(1.625 / 3.6e6 * 360)
    assert told["energy_joules"]["how"] == "by the power of a core"


def test_threads_multiply_each_side(shadowed):
    with open_log(shadowed()) as log:
        (ledger,) = ledgers(log, Prices(threads={"served": 2, "original": 4}))
    told = ledger.to_json()["seconds"]
    assert told["served"]["value"] == pytest.approx(0.2)
    assert told["original"]["value"] == pytest.approx(1.4)
    assert told["shadow"]["value"] == pytest.approx(0.35)


def test_joules_that_were_measured_win(shadowed):
    prices = Prices(watts=10.0, joules={"served": 0.01, "original": 0.05})
    with open_log(shadowed()) as log:
        (ledger,) = ledgers(log, prices)
    told = ledger.to_json()["energy_joules"]
    assert told["how"] == "measured"
    assert told["saved"]["value"] == pytest.approx(40)
    assert told["net"]["value"] == pytest.approx(40 - 0.25 * 50)


def test_without_prices_there_are_seconds_alone(shadowed):
    with open_log(shadowed()) as log:
        (ledger,) = ledgers(log)
    told = ledger.to_json()
    assert told["money"] is told["energy_joules"] is told["co2_grams"] is None
    assert any("threads" in note for note in told["notes"])


def test_answers_that_failed_are_no_pairs_but_were_paid_for(shadowed):
    with open_log(shadowed(failing=200)) as log:
        (ledger,) = ledgers(log)
    assert ledger.pairs.n == 50
    assert ledger.shadow_seconds == pytest.approx(100 * 350e-6)


def test_a_log_without_a_shadow_has_no_ledger(make, written):
    with open_log(written([make(at) for at in range(5)])) as log:
        assert ledgers(log) == []


def test_a_log_without_times_says_nothing_of_cost(make, written):
    rows = [make(0, compute_us=0), make(0, compute_us=0, route="shadow", sha=ORIGINAL)]
    with open_log(written(rows)) as log:
        (ledger,) = ledgers(log)
    assert "seconds" not in ledger.to_json()


def test_a_few_pairs_have_no_interval(shadowed):
    with open_log(shadowed(n=12)) as log:
        (ledger,) = ledgers(log)
    assert ledger.to_json()["seconds"]["saved"]["low"] is None


@pytest.mark.parametrize("likeness", [0.0, 0.8])
def test_intervals_hold_though_neighbours_are_alike(likeness):
    rng, held, studies = np.random.default_rng(1), 0, 200
    for _ in range(studies):
        mood = np.zeros(3000)
        drive = rng.normal(size=3000) * np.sqrt(1 - likeness**2)
        for at in range(1, 3000):
            mood[at] = likeness * mood[at - 1] + drive[at]
        means = BatchMeans(1)
        means.add(np.exp(0.3 * mood)[:, None])
        found = means.ratio([0, 1], [1, 0])
        held += found.low <= np.exp(0.045) <= found.high
    assert held / studies > 0.9


def test_the_delta_method_agrees_with_the_bootstrap():
    rng = np.random.default_rng(2)
    rows = np.exp(rng.normal(size=(1280, 2)) * 0.5)
    means = BatchMeans(2)
    means.add(rows)
    found = means.ratio([0, 0, 1], [0, 1, 0])
    picks = rng.integers(0, 1280, (2000, 1280))
    ratios = rows[picks, 1].mean(1) / rows[picks, 0].mean(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert found.value == pytest.approx(rows[:, 1].mean() / rows[:, 0].mean())
    assert found.high - found.low == pytest.approx(high - low, rel=0.25)


def test_runs_stay_few_however_rows_come():
    one, many = BatchMeans(1), BatchMeans(1)
    rows = np.random.default_rng(3).random((5000, 1))
    one.add(rows)
    for start in range(0, 5000, 77):
        many.add(rows[start : start + 77])
    assert one.n == many.n == 5000
    assert len(many._sums) <= 64
    assert many.ratio([0, 1], [1, 0]).value == pytest.approx(rows.mean())


def test_prices_come_from_a_file(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("currency: EUR\ncore_hour: 0.04\nthreads: {served: 2}\n")
    assert Prices.read(path) == Prices("EUR", 0.04, {"served": 2})
    (tmp_path / "prices.json").write_text('{"core_hour": 1}')
    assert Prices.read(tmp_path / "prices.json").core_hour == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("core_hours: 1", "core_hours"),
        ("core_hour: cheap", "core_hour"),
        ("core_hour: -1", "core_hour"),
        ("core_hour: .nan", "core_hour"),
        ("threads: {shadow: 1}", "shadow"),
        ("threads: 3", "threads"),
        ("- 1", "names with values"),
        ("a: [", "YAML"),
    ],
)
def test_prices_say_what_is_wrong_with_them(tmp_path, text, told):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        Prices.read(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="was expected at"):
        Prices.read(tmp_path / "none.json")
