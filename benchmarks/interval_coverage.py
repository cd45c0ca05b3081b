"""Do intervals of latency percentiles hold what they promise, where runs depend on each other?

Simulated runs, whose percentiles are known, and real ones: a minute of ResNet-20 on onnxruntime in
blocks of 42 runs, of which 24 drawn at random stand for the rounds of a timing, and the whole
minute for the truth. Takes 5 minutes.

    python benchmarks/interval_coverage.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from _results import record, table
from scipy import signal, stats

from fettle import tasks
from fettle.core.arrays import rows
from fettle.core.context import Context
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.measure._intervals import mean_interval, order_bounds, percentile_interval
from fettle.measure._timing import collector_at_rest, time_block
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.search.workshop import Source, Workshop

SHARES = (0.5, 0.9, 0.95, 0.99)
STUDIES, ROUNDS, RUNS, SECONDS = 400, 24, 42, 60
RNG = np.random.default_rng(0)


def independent() -> np.ndarray:
    """Return normal samples, shape (rounds, runs)."""
    return RNG.normal(size=(ROUNDS, RUNS))


def alike_in_rounds(part: float) -> np.ndarray:
    """Return samples of which `part` of the variance belongs to the round."""
    return np.sqrt(part) * RNG.normal(size=(ROUNDS, 1)) + np.sqrt(1 - part) * independent()


def autocorrelated(like: float) -> np.ndarray:
    """Return samples each of which is `like` its predecessor."""
    drive = RNG.normal(size=ROUNDS * RUNS) * np.sqrt(1 - like**2)
    drive[0] = RNG.normal()
    return signal.lfilter([1], [1, -like], drive).reshape(ROUNDS, RUNS)


def drifting(like: float) -> np.ndarray:
    """Return samples of which 30 % of the variance is a level that moves from round to round."""
    drive = RNG.normal(size=ROUNDS) * np.sqrt(1 - like**2)
    drive[0] = RNG.normal()
    level = signal.lfilter([1], [1, -like], drive)[:, None]
    return np.sqrt(0.3) * level + np.sqrt(0.7) * independent()


SIMULATED: dict[str, Callable[[], np.ndarray]] = {
    "independent": independent,
    "10 % of the variance is the round's": partial(alike_in_rounds, 0.1),
    "50 % of the variance is the round's": partial(alike_in_rounds, 0.5),
    "autocorrelation 0.9 from run to run": partial(autocorrelated, 0.9),
    "level drifts, 0.6 from round to round": partial(drifting, 0.6),
    "level drifts, 0.9 from round to round": partial(drifting, 0.9),
}


def main() -> None:
    """Simulate, record, and write the table."""
    quantiles = {share: float(np.exp(0.5 * stats.norm.ppf(share))) for share in SHARES}
    lines = [
        line(f"simulated: {name}", lambda d=draw: np.exp(0.5 * d()), quantiles, np.exp(0.125))
        for name, draw in SIMULATED.items()
    ]
    blocks = recorded()
    ordered = np.sort(blocks.ravel())
    true = {share: ordered[int(np.ceil(share * len(ordered))) - 1] for share in SHARES}
    drawn = lambda: blocks[RNG.choice(len(blocks), ROUNDS, replace=False)]  # noqa: E731
    lines.append(line(f"real: 24 of {len(blocks)} rounds of a minute", drawn, true, blocks.mean()))
    head = ("samples", *(f"p{100 * share:.0f}" for share in SHARES), "mean")
    note = (
        f"{ROUNDS} rounds of {RUNS} runs, {STUDIES} studies each, lognormal where simulated. Each"
        " cell: how often the interval for independent samples holds the truth → how often ours"
        " does, where it is given, and in how many studies it can't be given. Nominal: 95 %."
    )
    record("interval-coverage", "Intervals of latency where runs depend on each other",
           [note, "", *table(head, lines)])  # fmt: skip


def line(name: str, draw: Callable[[], np.ndarray], true: dict[float, float], mean: float):
    """Return one line of the table."""
    studies = [draw() for _ in range(STUDIES)]
    cells = []
    for share, truth in true.items():
        low, high = order_bounds(ROUNDS * RUNS, share)
        ordered = [np.sort(study.ravel()) for study in studies]
        plain = np.mean([o[low - 1] <= truth <= o[high - 1] for o in ordered])
        cells.append(
            f"{plain:.0%} → {held([percentile_interval(s, share) for s in studies], truth)}"
        )
    spread = [1.96 * study.std() / np.sqrt(study.size) for study in studies]
    plain = np.mean([abs(s.mean() - mean) <= half for s, half in zip(studies, spread, strict=True)])
    return [name, *cells, f"{plain:.0%} → {held([mean_interval(s) for s in studies], mean)}"]


def held(found: list[tuple[float, float] | None], truth: float) -> str:
    """Return how often the given intervals hold the truth, and how many are missing."""
    given = [pair for pair in found if pair]
    missing = 1 - len(given) / len(found)
    share = f"{np.mean([low <= truth <= high for low, high in given]):.0%}" if given else "–"
    return share + (f" ({missing:.0%} none)" if missing else "")


def recorded() -> np.ndarray:
    """Return a minute of blocks, shape (blocks, runs)."""
    task = tasks.load("noise:3x32x32:10")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        store = Store(scratch, Journal(scratch / "journal.jsonl"))
        path = Workshop(Source("cifar:resnet20"), task, store, Context()).make(Recipe()).path
        session = RUNTIMES.make("onnxruntime", threads=1).build(Path(path))
    run, blocks = partial(session.run, rows(task.example_inputs(1), 0, 1)), []
    with collector_at_rest():
        end = perf_counter() + SECONDS
        while perf_counter() < end:
            blocks.append(time_block(run, RUNS, 0.001))
    return np.array(blocks)


if __name__ == "__main__":
    main()
