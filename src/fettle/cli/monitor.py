"""Tell how a served model does: traffic, latency, failures, drift, A/B, cost and alerts."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.cli._assessment import add_assessment, assessed, assessment_lines
from fettle.cli._dashboard import (
    add_dashboard,
    conclude,
    emit_prometheus,
    lines_of,
    wanted_of,
)
from fettle.cli._options import positive
from fettle.cli._outcome import Outcome
from fettle.core.errors import InputError

if TYPE_CHECKING:
    from fettle.core.bundle import Bundle

_WIDTH = 78
_SHOWN = 20  # windows


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "log",
        type=Path,
        nargs="?",
        metavar="LOG",
        help="what `fettle serve --log` writes; or a table in CSV or Parquet with columns such as"
        " time, latency_ms, prediction, label",
    )
    parser.add_argument(
        "--window",
        type=positive,
        metavar="SECONDS",
        help="length of a window; default: some dozens",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="compare with what its checklist measured, and with its drift reference",
    )
    add_assessment(parser)
    add_dashboard(parser)


def run(args: argparse.Namespace) -> Outcome:
    """Summarize the log."""
    bundle = _bundle(args.bundle)
    manifest = bundle.manifest if bundle else None
    written = emit_prometheus(args.emit_prometheus, manifest) if args.emit_prometheus else []
    if args.log is None:
        if not written:
            raise InputError("a LOG was expected, or --emit-prometheus DIR")
        return Outcome({"written": written}, "\n".join(written))
    from fettle.monitor.dashboard import gather
    from fettle.monitor.table import open_source

    wanted = wanted_of(args, manifest)
    with open_source(args.log) as log:
        result = gather(log, replace(wanted, known=assessed(args, bundle, log)))
    code = conclude(args, result)
    return Outcome({**result, "written": written}, text_of(result), code)


def text_of(result: dict[str, Any]) -> str:
    """Return the summary as plain text."""
    if not result["series"]:
        return "no predictions"
    lines = []
    for series in result["series"]:
        lines += [*_series(series, result["window_seconds"]), ""]
    lines += [_failure(each) for each in result["failures"][:10]]
    if result["losses"]:
        lost = ", ".join(f"{count} {kind}" for kind, count in result["losses"].items())
        lines += ["", f"not in the log: {lost}"]
    return "\n".join([*lines, "", *assessment_lines(result), *lines_of(result)]).rstrip()


def _bundle(path: Path | None) -> Bundle | None:
    if path is None:
        return None
    from fettle.core.bundle import Bundle

    return Bundle.open(path)


def _series(series: dict[str, Any], seconds: float) -> list[str]:
    names = [series[k] for k in ("model", "version", "sha", "route") if series[k]]
    head = f"{'  '.join(names) or 'predictions'}: {_cell(series['all'])}"
    windows = series["windows"]
    lines = [head, f"  {'windows of ' + _length(seconds):24}{'n':>9}{'failed':>9}" + _HEADS]
    if len(windows) > _SHOWN:
        lines.append(f"  … {len(windows) - _SHOWN} earlier ones; --json holds all")
    lines += [_row(_moment(window["start"]), window) for window in windows[-_SHOWN:]]
    lines.append(_row("all", series["all"]))
    promise = series.get("promise")
    if promise:
        slower = ", ".join(promise["slower"])
        kept = f"slower than proven in {slower}" if slower else "as quick as proven"
        ratios = ", ".join(f"{q} × {ratio:.2f}" for q, ratio in promise["ratio"].items())
        lines.append(f"  computing, held against batches of {promise['batch']}: {kept} ({ratios})")
    return lines


_HEADS = "".join(f"{name:>12}" for name in ("p50 ms", "p95 ms", "p99 ms"))


def _cell(cell: dict[str, Any]) -> str:
    failed = cell["failed"]
    told = (
        f"{failed['value']:.2%} failed [{failed['low']:.2%}, {failed['high']:.2%}]"
        if failed
        else "none"
    )
    errors = ", ".join(f"{count} {status}" for status, count in cell["errors"].items())
    return f"{cell['n']} requests, {told}" + (f": {errors}" if errors else "")


def _row(name: str, cell: dict[str, Any]) -> str:
    share = f"{cell['failed']['value']:.1%}"
    found = [cell["latency_ms"][quantile] for quantile in ("p50", "p95", "p99")]
    shown = "".join(f"{each['value']:12.3g}" if each else f"{'–':>12}" for each in found)
    return f"  {name:24}{cell['n']:9}{share:>9}{shown}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _failure(failure: dict[str, Any]) -> str:
    text = f"{failure['n']:7} × {failure['status']}: {failure['error'] or 'no message'}"
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _length(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
