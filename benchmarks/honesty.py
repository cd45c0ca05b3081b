"""How often a search passes what truly lies over the budget: 200 small studies with known truth.

python benchmarks/honesty.py [--studies 200] [--only KIND] [--again]

Each study is a whole search: candidates of many true drops are made, timed, scored on `select`, the
best by the objective of those likely to be proven meets `test`, and after it others, if it must be.
The winner's true drop is computed on 200,000 fresh inputs, labels integrated out (`_known.py`). But
in *engines*, the untouched model may not win.

- *around*: the candidates' true drops lie on both sides of the budget;
- *over*: every candidate lies over it, so that each that passes is a lie;
- *engines*: quantized forms, too, each lowered for the engine by what helps here;
- *again*: the search is repeated in its folder with more candidates until it passes, three times
  at most: the looks of all repetitions share one level;
- *cheating*, the control: as *over*, but the verdict is read from the examples that chose. It has
  to lie often, or these studies could not tell.

Rows are kept in `runs/honesty`, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _known import HIDDEN, KnownTask, Narrow, save_model, true_drop
from _results import record, table

from fettle.core.arrays import Split
from fettle.core.context import Context
from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget, Verdict
from fettle.measure.noninferiority import proportion_interval
from fettle.search import Candidate, Setting, Source, Workshop
from fettle.search._store import Store
from fettle.search._trial import Trial
from fettle.search.journal import Journal
from fettle.search.optimize import Search, Wish

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "runs" / "honesty" / "rows.jsonl"
SHARES = {"around": 0.5, "over": 0.2, "engines": 0.1, "again": 0.2}  # of the honest studies
CONTROL, CONTROLS = "cheating", 40
WIDTHS = (8, 12, 16, 20, 24, 32, 40, 56)
DRAWS = 2  # candidates of each width
RUNS = 3  # of a study that is repeated
Row = dict[str, Any]


class Settled(Exception):
    """The end of a search, before anything is sealed."""

    def __init__(self, winner: Trial, verdict: Verdict) -> None:
        self.winner, self.verdict = winner, verdict


class Watched(Search):
    """A search that ends with its verdict: bundles and reports have no say in it."""

    def _settle(self) -> Any:
        winner, verdict, _ = super()._settle()
        raise Settled(winner, verdict)


class Peeking(KnownTask):
    """A task whose `test` is what candidates are chosen with."""

    def _part(self, split: Split) -> Any:
        return super()._part("select" if split == "test" else split)


def study(kind: str, seed: int) -> Row:
    """Run one study and hold its verdict against the truth."""
    rng = np.random.default_rng([seed, 5])
    select, test = int(rng.choice([300, 1000])), int(rng.choice([600, 1500, 3000]))
    task = (Peeking if kind == CONTROL else KnownTask)(seed, select, test)
    with tempfile.TemporaryDirectory(prefix="fettle-honesty-") as name:
        out = Path(name)
        save_model(out / "model.onnx", task, seed)
        field = candidates(seed)
        budget = float(rng.choice([0.02, 0.03, 0.05]))
        if kind in ("over", CONTROL):
            field, budget = over(task, field, out)
        means = (
            {"skip": ("graph.float16",)} if kind == "engines" else {"only": (Narrow.plugin_name,)}
        )
        wish = Wish(objective=str(rng.choice(["size", "latency"])), **means)
        parts = np.array_split(np.array(field, dtype=object), RUNS if kind == "again" else 1)
        for part in parts:
            search, settled = searched(task, out, list(part), Budget(max_drop=budget), wish)
            if settled.verdict.passed:
                break
        truth, error = true_drop(task.law, search.base.session, settled.winner.session)
    return {
        "kind": kind,
        "seed": seed,
        "outcome": settled.verdict.outcome,
        "recipe": str(settled.winner.recipe),
        "budget": budget,
        "true_drop": truth,
        "error": error,
        "over": truth > budget,
        "measured": settled.verdict.drop.to_json(),
        "looks": len(search.looks.seen),
        "trials": len(search.trials),
        "select": select,
        "test": test,
        "objective": wish.objective,
    }


def candidates(seed: int) -> list[Candidate]:
    """Return networks of every width, drawn anew for each study."""
    return [
        Candidate(Recipe((Narrow(keep=width, draw=DRAWS * seed + i),)))
        for i in range(DRAWS)
        for width in WIDTHS
    ]


def over(task: KnownTask, field: Sequence[Candidate], out: Path) -> tuple[list[Candidate], float]:
    """Return the candidates that truly lose at least a point, and a budget just below them all."""
    workshop = workshop_in(out, task)
    plain = Recipe.parse("@ onnxruntime(threads=1)").runtime
    base = plain.build(out / "model.onnx", ())  # type: ignore[union-attr]
    drops = []
    for candidate in field:
        session = plain.build(workshop.make(candidate.recipe).path, ())  # type: ignore[union-attr]
        drops.append(true_drop(task.law, base, session)[0])
    chosen = [(c, d) for c, d in zip(field, drops, strict=True) if d >= 0.01]
    return [c for c, _ in chosen], 0.98 * min(d for _, d in chosen)


def workshop_in(out: Path, task: KnownTask) -> Workshop:
    """Return a workshop whose stages lie in `out`."""
    store = Store(out, Journal(out / "journal.jsonl"))
    return Workshop(Source(str(out / "model.onnx")), task, store, Context())


def searched(
    task: KnownTask, out: Path, field: Sequence[Candidate], budget: Budget, wish: Wish
) -> tuple[Search, Settled]:
    """Search in `out`, up to the verdict."""
    setting = Setting(budget, ("onnxruntime",), batch=8, threads=1, seconds=0.02)
    search = Watched(workshop_in(out, task), setting, out, wish)
    try:
        search.run(field)
    except Settled as settled:
        return search, settled
    raise AssertionError("a search ends with a verdict")


def kept() -> dict[tuple[str, int], Row]:
    """Return the rows of earlier runs."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {(row["kind"], row["seed"]): row for row in rows}


def counts(studies: int) -> dict[str, int]:
    """Return how many studies there are of each kind."""
    honest = {kind: round(share * studies) for kind, share in SHARES.items()}
    return {**honest, CONTROL: min(CONTROLS, studies)}


def line(name: str, rows: Sequence[Row]) -> list[str]:
    """Return one line of the table."""
    passed = [row for row in rows if row["outcome"] == "pass"]
    lies = sum(row["over"] for row in passed)
    outcomes = [sum(row["outcome"] == o for row in rows) for o in ("fail", "inconclusive")]
    high = proportion_interval(np.array([r["over"] for r in passed], float))[1] if passed else 1.0
    looks = float(np.mean([row["looks"] for row in rows]))
    return [
        name,
        str(len(rows)),
        str(len(passed)),
        *map(str, outcomes),
        f"{looks:.2f}",
        str(lies),
        f"{lies / max(len(passed), 1):.1%} (at most {high:.1%})",
        f"{lies / len(rows):.1%}",
    ]


def main() -> int:
    """Run what isn't there yet; write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--only", choices=[*SHARES, CONTROL], help="this kind alone")
    parser.add_argument("--again", action="store_true", help="forget earlier rows")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.again:
        KEPT.unlink(missing_ok=True)
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    gc.freeze()  # each timing collects, and would search all that was imported
    todo = [(kind, seed) for kind, many in counts(args.studies).items() for seed in range(many)]
    for kind, seed in todo:
        if (kind, seed) in kept() or args.only not in (None, kind):
            continue
        row = study(kind, seed)
        with KEPT.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{kind} {seed}: {row['outcome']}, truly {row['true_drop']:+.4f}", file=sys.stderr)
    write([row for key, row in kept().items() if key in todo])
    return 0


def write(rows: Sequence[Row]) -> None:
    """Write the dated result."""
    honest = [row for row in rows if row["kind"] != CONTROL]
    groups = {kind: [r for r in rows if r["kind"] == kind] for kind in (*SHARES, CONTROL)}
    lines = [line(kind, found) for kind, found in groups.items() if found]
    if honest:
        lines.insert(-1 if groups[CONTROL] else len(lines), line("**all but the control**", honest))
    head = ("studies", "n", "pass", "fail", "inconclusive", "looks, mean", "passes over the budget",
            "of the passes (95 %)", "of the studies")  # fmt: skip
    said = [*(__doc__ or "").splitlines()[4:19], "", f"Networks of {HIDDEN} features narrowed to"
            f" {', '.join(map(str, WIDTHS))}, {DRAWS} draws of each.", ""]  # fmt: skip
    record("honesty", "Passes that truly lie over the budget", [*said, *table(head, lines)])


if __name__ == "__main__":
    sys.exit(main())
