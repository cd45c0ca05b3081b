"""Two hundred artifacts against themselves: how often does the stopwatch claim a difference?

Each comparison times two separately built subjects of one file, with sessions rebuilt between
rounds, and a twin for the noise floor, as `fettle bench` does. A claim is false by construction.
Every fifth comparison also times the file with a tenth of its time wasted on purpose: a stopwatch
that claims nothing at all would be no stopwatch.

    python benchmarks/against_itself.py [COUNT [SECONDS]]

Takes about 10 minutes on a quiet machine for 200 comparisons; finished ones are kept in
`runs/against-itself.jsonl`, and the command goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from _results import record, table
from _sequences import exported

from fettle import tasks
from fettle.core.arrays import Arrays, rows
from fettle.core.context import Context
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.measure import (
    Plan,
    Ratio,
    Subject,
    differs,
    noise_in,
    ratio,
    time_interleaved,
    twin_of,
)
from fettle.measure.lowering import choose_lowering
from fettle.runtimes import Runtime
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.search.workshop import Source, Workshop

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "runs" / "against-itself.jsonl"
ENGINES = ("onnxruntime", "openvino")
INT8 = Recipe.parse("quantize.static(samples=32)")
WASTE, EVERY = 0.1, 5


@dataclass(frozen=True)
class Cell:
    """One file on one engine."""

    name: str
    path: Path
    runtime: Runtime
    lowering: tuple[str, ...]
    inputs: Arrays

    def build(self):
        """Return the `run` of a new session."""
        session = self.runtime.build(self.path, self.lowering)
        return partial(session.run, self.inputs)

    def subject(self, label: str) -> Subject:
        """Return a subject with a session of its own."""
        return Subject(label, self.build(), rebuild=self.build)

    def wasteful(self) -> Subject:
        """Return the same, slowed by a tenth."""
        run = self.build()
        took = sorted(timed(run) for _ in range(9))[4]

        def rebuild():
            return partial(run_and_waste, self.build(), WASTE * took)

        return Subject("slowed", rebuild(), rebuild=rebuild)


def timed(run) -> float:
    """Return the seconds of one call."""
    start = perf_counter()
    run()
    return perf_counter() - start


def run_and_waste(run, seconds: float) -> None:
    """Run, then be busy for `seconds`."""
    run()
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def main() -> None:
    """Compare until `COUNT` comparisons are kept, then write the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.2
    KEPT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        cells = list(made(Path(folder)))
        for turn in range(len(kept()), count):
            found = compared(cells[turn % len(cells)], seconds, turn // len(cells) % EVERY == 0)
            with KEPT.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(f"{turn + 1}/{count} {found['cell']} {found['ratio']['value']:.3f}"
                  f"{' CLAIMED' if found['claimed'] else ''}", file=sys.stderr)  # fmt: skip
    write(kept()[:count])


def kept() -> list[dict]:
    """Return the comparisons made so far."""
    return [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []


def made(folder: Path) -> Iterator[Cell]:
    """Make the files: a small and a larger convolutional network, INT8, and an LSTM."""
    files: dict[str, tuple[Path, Arrays]] = {}
    for name, source, data in (
        ("ResNet-20 f32", "cifar:resnet20", "noise:3x32x32:10"),
        ("ResNet-18", f"{HERE}/_networks.py:resnet18", "noise:3x224x224"),
    ):
        task, scratch = tasks.load(data), folder / name.split()[0]
        store = Store(scratch, Journal(scratch / "journal.jsonl"))
        workshop = Workshop(Source(source), task, store, Context())
        recipes = (
            {name: Recipe()} if "f32" in name else {f"{name} f32": Recipe(), f"{name} INT8": INT8}
        )
        for label, recipe in recipes.items():
            files[label] = Path(workshop.make(recipe).path), task.example_inputs(8)
    files["LSTM f32"] = exported("LSTM 2×256, 64 steps", folder)
    for label, (path, inputs) in files.items():
        for engine in ENGINES:
            runtime = RUNTIMES.make(engine, threads=1)
            lowering = choose_lowering(path, runtime, inputs)[0] if "INT8" in label else ()
            yield Cell(f"{label} @ {engine}", path, runtime, lowering, rows(inputs, 0, 1))


def compared(cell: Cell, seconds: float, control: bool) -> dict:
    """Time two subjects of one file, and say whether a difference is claimed."""
    start = perf_counter()
    first, second = cell.subject("first"), cell.subject("second")
    building = (perf_counter() - start) / 2
    subjects = [first, second, twin_of(first), *([cell.wasteful()] if control else [])]
    plan = Plan.for_budget(seconds, building * len(subjects))
    samples = time_interleaved(subjects, plan)
    noise, found = noise_in(samples, "first"), ratio(samples["first"], samples["second"])
    slowed = ratio(samples["slowed"], samples["first"]) if control else None
    return {
        "cell": cell.name,
        "ratio": asdict(found),
        "noise": asdict(noise),
        "claimed": differs(found, noise),
        "interval_alone": differs(found),
        "slowed": slowed and asdict(slowed),
        "slowed_claimed": slowed and differs(slowed, noise),
        "slowed_interval_alone": slowed and differs(slowed),
        "seconds": perf_counter() - start,
    }


def write(found: list[dict]) -> None:
    """Write claims by file and engine, and in all."""
    names = sorted({row["cell"] for row in found})
    groups = {name: [row for row in found if row["cell"] == name] for name in names}
    groups["**all**"] = found
    head = ("file @ engine", "comparisons", "claims", "claims without the floor", "median interval",
            "median floor", "10 % slower: found", "found without the floor")  # fmt: skip
    seconds = sum(row["seconds"] for row in found)
    record("against-itself", "The stopwatch against itself: A/A comparisons at 95 %", [
        *table(head, [line(name, rows) for name, rows in groups.items()]), "",
        f"{len(found)} comparisons in {seconds / 60:.1f} minutes. Every claim but those of the"
        " last two columns is false. The goal: at most 7 %.",
    ])  # fmt: skip


def line(name: str, found: list[dict]) -> list[str]:
    """Return one line of the table."""
    slowed = [row for row in found if row["slowed"]]
    widths = sorted(row["ratio"]["high"] / row["ratio"]["low"] - 1 for row in found)
    floors = sorted(Ratio(**row["noise"]).stray - 1 for row in found)
    return [
        name,
        str(len(found)),
        share([row["claimed"] for row in found]),
        share([row["interval_alone"] for row in found]),
        f"±{widths[len(widths) // 2] / 2:.1%}",
        f"{floors[len(floors) // 2]:.1%}",
        share([row["slowed_claimed"] for row in slowed]),
        share([row["slowed_interval_alone"] for row in slowed]),
    ]


def share(found: list[bool]) -> str:
    """Return `3 (1.5 %)`."""
    return f"{sum(found)} ({sum(found) / len(found):.1%})" if found else "–"


if __name__ == "__main__":
    main()
