"""fettle beside other servers: the same models through onnxruntime, requests a second, latency.

One server at a time, each in an environment of its own; the order turns from round to round, and
the model is run bare, in a process without a server, in each round too. The other servers log as
they come; fettle logs every prediction, every access, keeps failures and counts for Prometheus.
Every number is kept in `results/serving.jsonl` as soon as it is there. Needs a quiet machine, `wrk`
(apt install wrk) and, the first time, a network for pip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import _serving_bare as bare
from _results import RESULTS, record, table
from _serving_environments import DEFAULT, PACKAGES, environment, version
from _serving_load import load
from _serving_models import MAKERS, Subject, subject
from _serving_servers import SERVERS, Server

KEPT = RESULTS / "serving.jsonl"
MODELS = Path(__file__).resolve().parent.parent / "runs" / "serving"
Row = dict[str, Any]


def main() -> None:
    """Measure in rounds, then write the tables."""
    options = _arguments()
    for name in options.servers:
        if name in PACKAGES:
            environment(name, options.environments)
    subjects = [subject(name, MODELS) for name in options.models]
    if options.prepare:
        return
    rows: list[Row] = []
    for turn in range(options.rounds):
        for each in subjects:
            rows += kept({"round": turn, **row} for row in measured(each, turn, options))
    title = f"Servers beside each other: {options.rounds} rounds of {options.seconds:g} s"
    record("serving", title, report(rows, subjects, options))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--models", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=5, help="of one load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=DEFAULT, help="the rivals' folder")
    parser.add_argument("--prepare", action="store_true", help="install and export, time nothing")
    return parser.parse_args()


def measured(each: Subject, turn: int, options: argparse.Namespace) -> Iterator[Row]:
    """Yield what a round finds for one model: the bare session, then the servers in turn."""
    yield {"server": "bare", "model": each.name, **bare.run(each.onnx, options.seconds)}
    first = turn % len(options.servers)
    for name in [*options.servers[first:], *options.servers[:first]]:
        print(f"round {turn + 1}, {each.name}, {name} …", file=sys.stderr)
        try:
            for row in loads(SERVERS[name], each, options):
                yield {"server": name, "model": each.name, **row}
        except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as error:
            yield {"server": name, "model": each.name, "failed": str(error)[:500]}


def loads(server: Server, each: Subject, options: argparse.Namespace) -> Iterator[Row]:
    """Yield what one server does under each load."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server.serving(each, options.environments, Path(folder)) as process,
    ):
        for binary in (False, True)[: 1 + server.binary]:
            ask = server.ask(each.input, each.x, binary)
            load(process.url, ask, 16, 1)  # warm
            for connections in options.connections:
                found = asdict(load(process.url, ask, connections, options.seconds))
                yield {"binary": binary, "connections": connections, **found}
        yield {"memory": process.memory()}


def kept(rows: Iterator[Row]) -> Iterator[Row]:
    """Pass rows on, each written down first."""
    for row in rows:
        with KEPT.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        yield row


def report(
    rows: Sequence[Row], subjects: Sequence[Subject], options: argparse.Namespace
) -> list[str]:
    """Return the tables, one for each model, and what has to be known to read them."""
    parts: list[str] = []
    for each in subjects:
        of_model = [row for row in rows if row["model"] == each.name]
        parts += [f"## {each.name}", "", *_bare_line(of_model), ""]
        parts += [*_table(of_model, options), "", *goals(of_model), ""]
    parts += ["Medians over the rounds. `json` and `binary` are the forms of a request's tensor,",
              "`–` where a server has no such form over HTTP. Load: `wrk`, one thread, on the same",
              "processors; answers are checked before and after each load.", ""]  # fmt: skip
    for name in options.servers:
        shown = f" {version(name)}" if name in PACKAGES else ""
        parts.append(f"- {name}{shown}: {SERVERS[name].setting}")
    return parts + [f"- failed: {row}" for row in rows if "failed" in row]


def _bare_line(rows: Sequence[Row]) -> list[str]:
    found = [row for row in rows if row["server"] == "bare"]
    p50, best = (statistics.median(row[key] for row in found) for key in ("p50", "throughput"))
    return [f"Bare session: {p50:.3f} ms for one, at best {best:.1f} a second (batch"
            f" {found[0]['batch']}, {found[0]['callers']} callers)."]  # fmt: skip


def _table(rows: Sequence[Row], options: argparse.Namespace) -> list[str]:
    head = ["server", "form", *(f"req/s @ {c} (p50, p99 ms)" for c in options.connections)]
    lines = []
    for name in options.servers:
        for binary in (False, True)[: 1 + SERVERS[name].binary]:
            cells = [_cell(rows, name, binary, c) for c in options.connections]
            lines.append([name, "binary" if binary else "json", *cells])
    memory = [[name, f"{value:.0f}"] for name in options.servers
              if (value := middle(rows, "memory", server=name)) is not None]  # fmt: skip
    return [*table([*head], lines), "", *table(["server", "memory, MiB"], memory)]


def _cell(rows: Sequence[Row], name: str, binary: bool, connections: int) -> str:
    where = {"server": name, "binary": binary, "connections": connections}
    rate = middle(rows, "rate", **where)
    if rate is None:
        return "failed"
    p50, p99 = (middle(rows, key, **where) for key in ("p50", "p99"))
    bad = sum(row["refused"] + row["broken"] for row in chosen(rows, where))
    return f"{rate:.0f} ({p50:.2f}, {p99:.1f})" + (f", {bad} errors" if bad else "")


def goals(rows: Sequence[Row]) -> list[str]:
    """Return fettle's goals in numbers: against the best rival, and over the bare session."""
    lines = []
    for form, binary in (("json", False), ("binary", True)):
        for connections in sorted({row["connections"] for row in rows if "connections" in row}):
            where = {"binary": binary, "connections": connections}
            rates = {name: middle(rows, "rate", server=name, **where) for name in SERVERS}
            own = rates.pop("fettle")
            others = {name: rate for name, rate in rates.items() if rate is not None}
            if own is None or not others:
                continue
            best = max(others, key=lambda name: others[name])
            lines.append(f"- {form}, {connections} connections: {own / others[best]:.2f} × the"
                         f" best other ({best})")  # fmt: skip
    return lines + _overhead(rows)


def _overhead(rows: Sequence[Row]) -> list[str]:
    own = middle(rows, "p50", server="fettle", connections=1, binary=True)
    alone = middle(rows, "p50", server="bare")
    best = middle(rows, "throughput", server="bare")
    rates = [row["rate"] for row in chosen(rows, {"server": "fettle", "binary": True})
             if "rate" in row]  # fmt: skip
    if own is None or alone is None or not best or not rates:
        return []
    return [f"- over the bare session, p50 of one connection, binary: {own - alone:+.3f} ms",
            f"- best rate, of the bare session's best: {_best(rows) / best:.1%}"]  # fmt: skip


def _best(rows: Sequence[Row]) -> float:
    """Return fettle's best rate: medians over the rounds, then the best load."""
    loads = {(row["binary"], row["connections"]) for row in chosen(rows, {"server": "fettle"})
             if "rate" in row}  # fmt: skip
    found = [middle(rows, "rate", server="fettle", binary=b, connections=c) for b, c in loads]
    return max(rate for rate in found if rate is not None)


def chosen(rows: Sequence[Row], where: Row) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in where.items())]


def middle(rows: Sequence[Row], key: str, **where: object) -> float | None:
    """Return the median over the rounds, or None where there is no such row."""
    found = [row[key] for row in chosen(rows, where) if key in row]
    return statistics.median(found) if found else None


if __name__ == "__main__":
    main()
