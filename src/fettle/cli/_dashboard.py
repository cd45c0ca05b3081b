"""The part of `fettle monitor` that judges: A/B, cost, alerts, and the page that shows it all."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.cli._options import positive

if TYPE_CHECKING:
    from fettle.core.bundle import Manifest
    from fettle.monitor.dashboard import Wanted


def add_dashboard(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("what is made of it")
    group.add_argument("--html", type=Path, metavar="FILE", help="write the dashboard as one page")
    group.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="YAML or JSON: currency, core_hour, threads, watts, joules, grams_per_kwh",
    )
    group.add_argument(
        "--rules",
        type=Path,
        metavar="FILE",
        help="YAML or JSON: rules of alerts, and who is told; exit code 1 while one is firing",
    )
    group.add_argument(
        "--emit-prometheus",
        type=Path,
        metavar="DIR",
        help="write recording rules and alerts for Prometheus, and a dashboard for Grafana",
    )
    group.add_argument(
        "--split",
        type=positive,
        metavar="SHARE",
        help="of the callers that B was to get, 0 to 1: the arms' sizes are held against it",
    )
    group.add_argument(
        "--margin",
        type=positive,
        default=0.01,
        metavar="SHARE",
        help="by how much B may be worse than A; default 0.01, one point",
    )


def wanted_of(args: argparse.Namespace, manifest: Manifest | None) -> Wanted:
    """Return what is asked of the log."""
    from fettle.monitor.ab import Plan
    from fettle.monitor.cost import Prices
    from fettle.monitor.dashboard import Wanted

    names = manifest.labels if manifest else ()
    classes = {name: number for number, name in enumerate(names)}
    return Wanted(
        window=args.window,
        manifest=manifest,
        plan=Plan(share=args.split, margin=args.margin, classes=classes),
        prices=Prices.read(args.prices) if args.prices else None,
    )


def emit_prometheus(folder: Path, manifest: Manifest | None) -> list[str]:
    """Write the files for Prometheus and Grafana; return their names."""
    from fettle.monitor.alerts.prometheus import emit
    from fettle.monitor.promise import promised

    sizes = promised(manifest) if manifest else {}
    p99 = next((sizes[size]["p99"] for size in sorted(sizes) if "p99" in sizes[size]), None)
    return [str(path) for path in emit(folder, p99 / 1000 if p99 else None)]


def conclude(args: argparse.Namespace, state: dict[str, Any]) -> int:
    """Tell alerts and write the page; return the exit code."""
    firing = False
    if args.rules:
        from fettle.monitor.alerts import Alerts, Rules
        from fettle.monitor.dashboard import renewed

        alerts = Alerts(Rules.read(args.rules))
        alerts.look(state)
        state.update(renewed({**state, "alerts": alerts.to_json()}))
        firing = bool(state["alerts"]["firing"])
    if args.html:
        from fettle.core.files import write_text
        from fettle.monitor.dashboard import page

        write_text(args.html, page(state))
    return int(firing)


def lines_of(state: dict[str, Any]) -> Iterator[str]:
    """Yield what a person should know of A/B, cost and alerts."""
    for trial in state["ab"]:
        yield from _of_trial(trial)
    for row in state["shadow"]:
        if row["n"]:
            yield _of_shadow(row)
    for ledger in state["cost"]:
        if "seconds" in ledger:
            yield _of_ledger(ledger)
    alerts = state["alerts"] or {}
    yield from (f"{alert['severity']}: {alert['summary']}" for alert in alerts.get("firing", ()))
    yield from (f"not delivered: {trouble}" for trouble in alerts.get("undelivered", ()))


def _of_trial(trial: dict[str, Any]) -> Iterator[str]:
    effect = trial["effect"]
    if effect["estimate"] is not None:
        spread = f"{effect['estimate']:+.2%} [{effect['low']:+.2%}, {effect['high']:+.2%}]"
        yield f"A/B of {trial['model']}, {trial['measure']}: B less A {spread}"
    yield f"  {trial['advice']}"


def _of_shadow(row: dict[str, Any]) -> str:
    return (
        f"{row['model']} {row['answered'][:8]} differs from the shadow in"
        f" {row['disagreement']['estimate']:.2%} of {row['n']} requests: its accuracy is at most"
        f" {row['accuracy_loss_at_most']:.2%} lower"
    )


def _of_ledger(ledger: dict[str, Any]) -> str:
    ratio, net = ledger["ratio"]["value"], ledger["seconds"]["net"]["value"]
    than = f"{ratio:.2f} times less" if ratio >= 1 else f"{1 / ratio:.2f} times more"
    turn = "save" if net >= 0 else "cost further"
    return (
        f"{ledger['model']} {ledger['answered'][:8]} costs {than} than the shadow;"
        f" 1,000 predictions {turn} {abs(net):.4g} core seconds, the shadow paid"
    )
