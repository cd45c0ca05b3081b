"""Detectors against independent references, closed forms, and the level that they claim."""

import sys

import numpy as np
import pytest
from scipy import spatial, stats

from fettle.core.errors import DataError, InputError, MissingError
from fettle.core.shelf import DETECTORS
from fettle.monitor.drift._cells import cells_of, gaps_of
from fettle.monitor.drift.mmd import discrepancies, gaussian

QUICK = ("drift.kolmogorov_smirnov", "drift.wasserstein", "drift.psi", "drift.jensen_shannon",
         "drift.chi_square")  # fmt: skip

SHARED = QUICK[:4]  # their clean windows are drawn once for all references


def make(name, **knobs):
    return DETECTORS.make(name, **{"resamples": 199, **knobs})


def numbers(seed, n, mean=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(mean, scale, n)


class TestAgainstScipy:
    @pytest.mark.parametrize("decimals", [16, 1], ids=["all differ", "repeated"])
    def test_kolmogorov_smirnov(self, decimals):
        a, b = numbers(0, 90).round(decimals), numbers(1, 70, 0.3).round(decimals)
        found = make("drift.kolmogorov_smirnov").fit(a).score(b)
        assert found.statistic == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)

    def test_its_p_value_is_the_exact_one(self):
        a = numbers(2, 60)
        detector = make("drift.kolmogorov_smirnov", resamples=9999).fit(a)
        for mean in (0.0, 0.3, 0.5):
            b = numbers(3, 40, mean)
            exact = stats.ks_2samp(a, b, method="exact").pvalue
            spread = np.sqrt(exact * (1 - exact) / 9999)
            assert abs(detector.score(b).p - exact) < 4 * spread + 1e-4

    def test_wasserstein(self):
        a, b = numbers(4, 90), numbers(5, 70, 0.3)
        found = make("drift.wasserstein").fit(a).score(b)
        assert found.statistic == pytest.approx(stats.wasserstein_distance(a, b))

    def test_chi_square(self):
        random = np.random.default_rng(6)
        a, b = random.integers(0, 5, 300), random.integers(0, 5, 200)
        table = np.array([np.bincount(a, minlength=5), np.bincount(b, minlength=5)])
        found = make("drift.chi_square").fit(a).score(b)
        expected = stats.chi2_contingency(table, correction=False)
        assert found.statistic == pytest.approx(expected.statistic)
        assert found.p == pytest.approx(expected.pvalue, abs=0.12)

    def test_chi_square_against_known_rates(self):
        """With a reference a million times the window, it is the test of goodness of fit."""
        from fettle.monitor.drift.chi_square import chi_square

        rates, counts = np.array([0.2, 0.3, 0.5]), np.array([25, 25, 50])
        expected = stats.chisquare(counts, rates * 100).statistic
        assert chi_square(rates * 1e8, counts) == pytest.approx(expected, rel=1e-4)

    def test_jensen_shannon(self):
        random = np.random.default_rng(7)
        a, b = random.integers(0, 4, 300), random.integers(0, 6, 200)
        p = np.append(np.bincount(a, minlength=4), 0)
        q = np.append(np.bincount(b, minlength=6)[:4], (b > 3).sum())
        expected = spatial.distance.jensenshannon(p, q, base=2)
        assert make("drift.jensen_shannon").fit(a).score(b).statistic == pytest.approx(expected)


class TestClosedForms:
    def test_psi_of_two_gaussians_in_bins(self):
        a, b = numbers(8, 200_000), numbers(9, 200_000, 0.5, 1.2)
        edges = np.quantile(a, np.arange(1, 10) / 10)
        ends = np.concatenate([[-np.inf], edges, [np.inf]])
        p, q = np.diff(stats.norm.cdf(ends)), np.diff(stats.norm.cdf(ends, 0.5, 1.2))
        expected = ((q - p) * np.log(q / p)).sum()
        found = make("drift.psi", resamples=99).fit(a).score(b)
        assert found.statistic == pytest.approx(expected, rel=0.03)

    def test_mmd_of_gaussians_under_a_gaussian_kernel(self):
        """E k(x, y) of N(0, I) and N(μ, I) in d dimensions is known."""
        d, width, mean, n = 3, 1.5, 0.8, 250
        random = np.random.default_rng(10)
        split = np.repeat([1.0, 0.0], n)[None]
        found = []
        for _ in range(80):
            rows = random.normal(0, 1, (2 * n, d))
            rows[n:] += mean
            kernel = gaussian(rows, rows, width)
            np.fill_diagonal(kernel, 0)
            found.append(discrepancies(kernel, split)[0])
        scale = (width**2 / (width**2 + 2)) ** (d / 2)
        expected = 2 * scale * (1 - np.exp(-d * mean**2 / (2 * (width**2 + 2))))
        error = np.std(found) / np.sqrt(len(found))
        assert np.mean(found) == pytest.approx(expected, abs=3 * error)
        assert error < 0.04 * expected

    def test_the_discrepancy_is_that_of_its_definition(self):
        random = np.random.default_rng(11)
        rows = random.normal(0, 1, (7, 2))
        kernel = gaussian(rows, rows, 1.0)
        x, y = kernel[:3, :3], kernel[3:, 3:]
        expected = (x.sum() - 3) / 6 + (y.sum() - 4) / 12 - 2 * kernel[:3, 3:].mean()
        np.fill_diagonal(kernel, 0)
        found = discrepancies(kernel, np.array([[1.0, 1, 1, 0, 0, 0, 0]]))
        assert found[0] == pytest.approx(expected)


class TestTheLevel:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", QUICK)
    @pytest.mark.parametrize("size", [50, 200])
    def test_false_alarms_are_as_many_as_promised(self, name, size):
        """3,000 clean windows, each with a reference of its own: within a point of 5 %."""
        random = np.random.default_rng(12)
        detector = make(name, resamples=3999 if name in SHARED else 1999)
        alarms, m = 0, 251  # a prime: the gap's steps are fine
        for _ in range(3000):
            values = random.gamma(2.0, 1.0, m + size)
            if name == "drift.chi_square":
                values = random.choice(6, m + size, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05])
            alarms += detector.fit(values[:m]).score(values[m:]).p <= 0.05
        assert alarms / 3000 == pytest.approx(0.05, abs=0.01)

    @pytest.mark.slow
    def test_so_are_those_of_mmd(self):
        random = np.random.default_rng(13)
        detector = make("drift.mmd")
        rows = random.normal(0, 1, (1000, 90, 4))
        alarms = sum(detector.fit(each[:50]).score(each[50:]).p <= 0.05 for each in rows)
        assert alarms / 1000 == pytest.approx(0.05, abs=0.01)

    @pytest.mark.parametrize("name", QUICK)
    def test_windows_drawn_from_the_reference_alone_would_alarm_far_more_often(self, name):
        """What the calibration is for: the reference's own luck counts."""
        if name == "drift.chi_square":
            reference = np.random.default_rng(14).integers(0, 6, 60)
        else:
            reference = numbers(14, 60)
        fitted = make(name).fit(reference)
        again = np.random.default_rng(15).choice(reference, (99, 400))
        assert np.quantile([fitted.statistic(each) for each in again], 0.95) < (
            0.8 * fitted.score(again[0]).threshold
        )

    @pytest.mark.parametrize("name", QUICK)
    def test_a_shift_is_seen(self, name):
        a, b = numbers(16, 200), numbers(17, 200, 1.0)
        if name == "drift.chi_square":
            a, b = a.astype(int), b.astype(int)
        found = make(name).fit(a).score(b)
        assert found.p == 1 / 200
        assert found.statistic > found.threshold

    def test_mmd_sees_what_no_single_number_shows(self):
        random = np.random.default_rng(18)
        a = random.normal(0, 1, (150, 2))
        b = random.normal(0, 1, (150, 1)) * [1.0, 1.0] + random.normal(0, 0.1, (150, 2))
        found = make("drift.mmd").fit(a).score(b)
        assert found.p <= 0.01
        assert make("drift.mmd").fit(a).score(random.normal(0, 1, (150, 2))).p > 0.01


class TestCells:
    def test_many_classes_share_cells_by_a_hash(self):
        random = np.random.default_rng(19)
        cells = cells_of(random.integers(0, 1000, 500).astype(str), 10)
        assert len(cells.masses) == 50
        assert cells.counts(random.integers(0, 1000, 300).astype(str)).sum() == 300

    def test_unseen_classes_have_a_cell(self):
        cells = cells_of(np.repeat(["a", "b"], 30), 10)
        assert cells.counts(np.array(["a", "z", "b", "b", "0"])).tolist() == [1, 2, 2]

    def test_gaps_and_numbers(self):
        gaps = gaps_of(np.array([1.0, 2.0, 2.0, 3.0]))
        assert gaps.masses.tolist() == [1, 0, 1, 1, 1, 0, 1]
        assert gaps.counts(np.array([0.0, 1.0, 1.5, 2.0, 9.0])).tolist() == [1, 1, 1, 1, 0, 0, 1]
        assert gaps.below.tolist() == [0, 0.25, 0.25, 0.75, 0.75, 1, 1]


class TestBadInput:
    def test_one_row_is_a_window(self):
        found = make("drift.kolmogorov_smirnov").fit(numbers(20, 100)).score(np.array([0.1]))
        assert found.p > 0.3
        assert found.n == 1

    def test_an_empty_window_is_refused(self):
        with pytest.raises(DataError, match="at least 1 finite"):
            make("drift.psi").fit(numbers(20, 100)).score(np.array([np.nan]))

    def test_a_reference_that_is_none(self):
        with pytest.raises(DataError, match="at least 2 finite"):
            make("drift.wasserstein").fit(np.array([1.0, np.nan, np.inf]))

    def test_another_kind_is_refused(self):
        with pytest.raises(DataError, match="expects number values, got class"):
            make("drift.wasserstein").fit(np.array(["a", "b"]))
        with pytest.raises(InputError, match="shape"):
            make("drift.psi").fit(np.zeros((2, 2, 2)))
        with pytest.raises(DataError, match="vectors of 2"):
            make("drift.mmd").fit(np.eye(4)[:, :2]).score(np.eye(3))

    def test_a_level_that_is_none(self):
        with pytest.raises(InputError, match="alpha"):
            make("drift.psi").fit(numbers(20, 100)).score(numbers(21, 9), alpha=1.5)

    @pytest.mark.parametrize("name", QUICK)
    def test_a_constant_reference(self, name):
        fitted = make(name).fit(np.ones(50, int if name == "drift.chi_square" else float))
        same = fitted.score(np.ones(50, int if name == "drift.chi_square" else float))
        assert same.p == 1.0


class TestAdwin:
    def test_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "river.drift", None)
        with pytest.raises(MissingError, match=r"pip install 'fettle\[drift\]'"):
            make("drift.adwin").fit(numbers(0, 50))

    @pytest.mark.slow
    def test_cuts_where_river_does(self):
        river = pytest.importorskip("river.drift")
        a, b = np.clip(numbers(22, 300, 0.5, 0.1), 0, 1), np.clip(numbers(23, 300, 0.6, 0.1), 0, 1)
        a[:2] = 0, 1
        strength = make("drift.adwin").fit(a).score(b).statistic
        for factor, cuts in ((0.99, False), (1.01, True)):
            delta, stream = 10.0 ** -(strength if cuts else strength + 0.25) * factor, None
            stream = river.ADWIN(delta=delta, clock=8)
            seen = False
            for at, value in enumerate([*a, *b]):
                stream.update(value)
                seen |= stream.drift_detected and at >= len(a)
            assert seen == cuts

    @pytest.mark.slow
    def test_sees_a_change_within_the_window(self):
        pytest.importorskip("river.drift")
        fitted = make("drift.adwin", resamples=99).fit(numbers(24, 200))
        late = np.concatenate([numbers(25, 100), numbers(26, 100, 1.5)])
        assert fitted.score(late).p <= 0.02
        assert fitted.score(numbers(27, 200)).p > 0.02

    @pytest.mark.slow
    def test_alarms_by_mistake_no_more_often_than_promised(self):
        """Its statistic has few values, so that it may alarm more seldom."""
        pytest.importorskip("river.drift")
        random = np.random.default_rng(28)
        detector = make("drift.adwin")
        rows = random.normal(0, 1, (400, 300))
        alarms = sum(detector.fit(each[:200]).score(each[200:]).p <= 0.05 for each in rows)
        assert alarms / 400 <= 0.07
