"""`fettle optimize` on the pretrained CIFAR-10 ResNets: the studies, their proofs, their controls.

python benchmarks/cifar_search.py [--model resnet20 resnet56] [--max-drop 0.01 0.02]
    [--batch 64 1] [--time-limit 2h] [--out DIR] [--apart] [--controls] [--table] [--remark TEXT]

Each study is the command `fettle optimize … --json` in a process of its own, in a folder of its
own below `--out`, which lies outside the repository. All studies of one network share their
trainings, which are kept by content, unless `--apart` is given; so the first one pays for most of
them. A study that was stopped goes on when the same command is given again; one that has ended is
left alone, unless it is given more time. `--controls` trains the shape of each pruned winner from
fresh weights, in the same way and as long (rule 6 of the rules of measurement). `--table` writes
the result of what is there.

The pretrained networks know all 50,000 training images by heart (100 % of them), and would seem to
lose more than they do, were candidates chosen on some of those. So 2,000 of the official test
images choose (`?held_out=2000`), and the other 8,000 are `test`, which is met once a look.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from _results import interval, record, table

from fettle.cli.optimize import duration

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))
OUT = ROOT.parent / "runs" / "cifar-search"
NETWORKS = ("resnet20", "resnet56")
HELD_OUT = 2000
SHARED = ("stages", "checkpoints")
GOALS = (("resnet56", 0.01, 64, 10.0), ("resnet56", 0.02, 64, 15.0), ("resnet20", 0.01, 64, 4.0))
Result = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One study: a network, a budget, a batch; where it lies."""

    network: str
    max_drop: float
    batch: int
    home: Path

    @property
    def out(self) -> Path:
        """The folder of the study."""
        return self.home / f"{self.network}-drop{self.max_drop:g}-batch{self.batch}"

    @property
    def data(self) -> str:
        """The data, with test images to choose with."""
        return f"cifar10:{DATA / 'cifar10'}?held_out={HELD_OUT}"

    @property
    def weights(self) -> str:
        """The pretrained weights."""
        return str(DATA / "weights" / f"cifar10_{self.network}.safetensors")

    def words(self, limit: str) -> list[str]:
        """Return the words of the command."""
        return [
            *("optimize", "--model", f"cifar:{self.network}", "--weights", self.weights),
            *("--data", self.data, "--target", "cpu", "--max-drop", f"{self.max_drop:g}"),
            *("--batch", str(self.batch), "--time-limit", limit, "--out", str(self.out), "--json"),
        ]

    def result(self) -> Result | None:
        """Return the result of a study that has ended."""
        return _read(self.out / "result.json")

    def control(self) -> Result | None:
        """Return the result of its control."""
        return _read(self.out / "control" / "result.json")


def main() -> int:
    """Search, train the controls, write the table: what was asked for."""
    args = _arguments()
    if not (DATA / "cifar10").is_dir():
        print("skipped: FETTLE_DATA names no folder with cifar10/, weights/", file=sys.stderr)
        return 0
    chosen = [
        Case(network, drop, batch, args.out)
        for network in args.model for drop in args.max_drop for batch in args.batch
    ]  # fmt: skip
    if not args.table:
        for case in chosen:
            search(case, args.time_limit, args.apart)
    if args.controls:
        for case in chosen:
            train_control(case)
    write(args.out, args.remark)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--max-drop", nargs="+", type=float, default=[0.01, 0.02])
    parser.add_argument("--batch", nargs="+", type=int, default=[64, 1])
    parser.add_argument("--time-limit", default="2h", help="of each study")
    parser.add_argument("--out", type=Path, default=OUT, help="where the studies lie")
    parser.add_argument("--apart", action="store_true", help="share no trainings")
    parser.add_argument("--controls", action="store_true", help="train the winners' controls")
    parser.add_argument("--table", action="store_true", help="search nothing")
    parser.add_argument("--remark", action="append", default=[], help="a line for the result")
    return parser.parse_args()


def search(case: Case, limit: str, apart: bool) -> None:
    """Run one study to its end, unless it has ended already."""
    if _has_had(case.result(), duration(limit)):
        print(f"{case.out.name}: done before", file=sys.stderr)
        return
    if not apart:
        _share(case.out, case.home / f"{case.network}-shared")
    command = [sys.executable, "-m", "fettle", *case.words(limit)]
    case.out.mkdir(parents=True, exist_ok=True)
    with (case.out.parent / f"{case.out.name}.log").open("a", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, check=False)
    print(f"{case.out.name}: exit code {done.returncode}", file=sys.stderr)


def _has_had(result: Result | None, seconds: float) -> bool:
    """Say whether a study has ended by itself, or had that long."""
    if result is None or result["interrupted"]:
        return False
    limit = result["search"]["time_limit"]
    return not result["search"]["stopped"].startswith("the time limit") or limit >= seconds


def _share(out: Path, shared: Path) -> None:
    """Let a study keep its stages where others of the network find them."""
    out.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        (shared / name).mkdir(parents=True, exist_ok=True)
        if not (out / name).exists():
            (out / name).symlink_to(shared / name, target_is_directory=True)


def train_control(case: Case) -> None:
    """Train the winner's shape from fresh weights, and prove it as the winner was."""
    result = case.result()
    if result is None or case.control() is not None:
        return
    from _control import control_of

    from fettle import tasks
    from fettle.core.context import Context
    from fettle.core.progress import reporter
    from fettle.core.recipe import Recipe
    from fettle.core.verdict import Budget
    from fettle.search import Setting, Source
    from fettle.search.compress import compress

    recipe = control_of(Recipe.parse(result["best"]["recipe"]))
    if recipe is None:
        return
    source = Source(f"cifar:{case.network}", case.weights)
    setting = Setting(
        Budget(max_drop=case.max_drop), batch=case.batch, only_given=True, data=case.data
    )
    folder = case.out / "control"
    _share(folder, case.out)
    compress(
        source, tasks.load(case.data), recipe, folder, setting, Context(progress=reporter()), source
    )


def write(home: Path, remarks: Sequence[str]) -> None:
    """Write the dated result of every study that has ended."""
    found = [
        Case(network, drop, batch, home)
        for network in NETWORKS for drop in _drops(home) for batch in (64, 1)
    ]  # fmt: skip
    done = [(case, result) for case in found if (result := case.result()) is not None]
    said = (__doc__ or "").partition("\n\nThe pretrained")[2]
    parts = [
        f"The pretrained{said}",
        *_studies(done), "", "## Goals", "", *_goals(done), "",
        "## Proofs", "", *_proofs(done), "", "## Controls (rule 6)", "", *_controls(done), "",
        "## What else lay on the frontier", "", *_frontiers(done), "",
        *(["## Remarks", "", *[f"- {remark}" for remark in remarks]] if remarks else []),
    ]  # fmt: skip
    record("cifar-search", "fettle optimize on CIFAR-10 ResNets", parts)


def _drops(home: Path) -> list[float]:
    """Return the budgets of all studies below `home`."""
    names = [path.name.split("-") for path in home.glob("*-drop*-batch*") if path.is_dir()]
    return sorted({float(parts[1].removeprefix("drop")) for parts in names})


def _studies(done: Sequence[tuple[Case, Result]]) -> list[str]:
    head = ("network", "budget, pp", "batch", "allowed, min", "taken, min", "first INT8 after, s",
            "trials", "verdict", "drop, pp (n)", "winner", "p50 ms", "× same engine's f32",
            "× best f32", "× torch eager", "size, of FP32")  # fmt: skip
    return table(head, [_study(case, result) for case, result in done])


def _study(case: Case, result: Result) -> list[str]:
    best, base, how = result["best"], result["baseline"], result["search"]
    limit = how["time_limit"]
    return [
        case.network,
        f"{100 * case.max_drop:g}",
        str(case.batch),
        f"{limit / 60:.0f}" if limit else "–",
        f"{result['seconds'] / 60:.1f}",
        _first_answer(case.out),
        str(len(result["trials"])),
        result["verdict"],
        _drop(best),
        f"`{best['recipe']}`",
        f"{best['latency_ms']['p50']:.3g}",
        *(interval(best["speedup"][name]) for name in
          ("vs_same_runtime_fp32", "vs_best_fp32", "vs_torch_eager")),
        f"{best['size_bytes'] / base['size_bytes']:.0%}",
    ]  # fmt: skip


def _drop(row: Result) -> str:
    drop = {k: 100 * row["drop"][k] for k in ("value", "low", "high")}
    return f"{interval(drop)} ({row['drop']['n']})"


def _first_answer(out: Path) -> str:
    """Return the seconds from the start to the first INT8 trial, by the journal's first run."""
    events = list(_events(out))
    start = next((e["time"] for e in events if e["event"] == "start"), None)
    is_first = (e for e in events if e["event"] == "trial" and "quantize." in e["trial"])
    first = next((e["time"] for e in is_first), None)
    if start is None or first is None:
        return "–"
    begun, ended = (datetime.fromisoformat(t) for t in (start, first))
    return f"{(ended - begun).total_seconds():.0f}"


def _events(out: Path) -> Iterator[Result]:
    from fettle.search.journal import Journal

    yield from Journal(out / "journal.jsonl").read()


def _goals(done: Sequence[tuple[Case, Result]]) -> list[str]:
    rows = []
    by_case = {(c.network, c.max_drop, c.batch): r for c, r in done}
    for network, drop, batch, goal in GOALS:
        result = by_case.get((network, drop, batch))
        reached = "not searched yet"
        if result is not None:
            gain = result["best"]["speedup"]["vs_same_runtime_fp32"]
            met = result["verdict"] == "pass" and gain["value"] >= goal
            reached = f"{interval(gain)}, {result['verdict']}: {'met' if met else 'missed'}"
        rows.append([network, f"{100 * drop:g}", str(batch), f"{goal:g}×", reached])
    head = ("network", "budget, pp", "batch", "goal, × same engine's f32", "reached")
    return table(head, rows)


def _proofs(done: Sequence[tuple[Case, Result]]) -> list[str]:
    lines = []
    for case, result in done:
        lines.append(f"- {case.out.name}: {result['verdict_text']}")
        lines += [
            f"    - look at {100 * look['budget']['confidence']:g} %: `{look['recipe']}`:"
            f" {look['outcome']}, upper bound {100 * look['drop']['high']:.2f} pp"
            for look in result["search"]["looks"]
        ]
        lines.append(f"    - stopped because {result['search']['stopped']}")
    return lines or ["None yet."]


def _controls(done: Sequence[tuple[Case, Result]]) -> list[str]:
    pairs = [(c, r, c.control()) for c, r in done]
    rows = [
        [
            case.out.name,
            f"{control['best']['macs'] / 1e6:.2f}",
            f"{result['best']['macs'] / 1e6:.2f}",
            _drop(result["best"]),
            _drop(control["best"]),
            f"`{control['best']['recipe']}`",
        ]
        for case, result, control in pairs
        if control is not None
    ]
    head = ("study", "M MACs, control", "M MACs, winner", "winner's drop, pp (n)",
            "control's drop, pp (n)", "control")  # fmt: skip
    return table(head, rows) if rows else ["None yet: no winner was pruned, or not run."]


def _frontiers(done: Sequence[tuple[Case, Result]]) -> list[str]:
    rows = [
        [
            case.out.name,
            f"`{row['recipe']}`",
            f"{row['latency_ms']['p50']:.3g}",
            f"{100 * row['drop']['value']:.2f}",
        ]
        for case, result in done
        for row in result["frontier"]
        if row["drop"] is not None
    ]
    return table(("study", "recipe", "p50 ms", "drop on select, pp"), rows)


def _read(path: Path) -> Result | None:
    try:
        found: Result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


if __name__ == "__main__":
    sys.exit(main())
