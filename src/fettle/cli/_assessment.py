"""The part of `fettle monitor` that holds a log against its bundle: drift, accuracy, triage."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.cli._options import positive

if TYPE_CHECKING:
    from fettle.core.bundle import Bundle
    from fettle.monitor._reading import LogFile

_FEW = 5


def add_assessment(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("drift and accuracy")
    group.add_argument(
        "--reference",
        type=Path,
        metavar="LOG",
        help="a log or table that drift is measured against, instead of the bundle's reference",
    )
    group.add_argument(
        "--detector",
        action="append",
        default=[],
        metavar="NAME",
        help="of drift, such as psi or mmd, for the kinds that it takes; may be given for each."
        " Default: kolmogorov_smirnov for numbers, chi_square for classes, mmd for vectors",
    )
    group.add_argument(
        "--correction",
        default="holm",
        choices=("holm", "benjamini-hochberg"),
        help="for many features, over those of one window; default holm",
    )
    group.add_argument(
        "--alpha",
        type=positive,
        default=0.05,
        metavar="CHANCE",
        help="that a clean window alarms; default 0.05",
    )
    group.add_argument(
        "--ranges",
        type=int,
        default=0,
        metavar="N",
        help="run the last N requests whose inputs were kept again, to see what layers clip",
    )


def assessed(args: argparse.Namespace, bundle: Bundle | None, log: LogFile) -> dict[str, Any]:
    """Return what holding the log against bundle and reference gives."""
    from fettle.monitor.assessment import Asked, assess

    asked = Asked(bundle, args.reference, args.window, None, _plan(args), max(0, args.ranges))
    return assess(log, asked)


def assessment_lines(state: dict[str, Any]) -> Iterator[str]:
    """Yield what a person should know."""
    if state["drift"]:
        yield from _of_drift(state["drift"])
    if state["accuracy"]:
        yield from _of_accuracy(state["accuracy"])
    if state.get("ranges"):
        yield from _of_ranges(state["ranges"])
    if state["triage"]:
        yield f"cause: {state['triage']['cause']}. {state['triage']['reason']}"
        yield f"do: {state['triage']['action']}"


def _plan(args: argparse.Namespace) -> Any:
    from fettle.core.shelf import DETECTORS
    from fettle.monitor.drift import Detector, Plan

    places = {"number": "number", "class": "class_", "vector": "vector"}
    chosen: dict[str, str] = {}
    for given in args.detector:
        name = given if given.startswith("drift.") else f"drift.{given}"
        found = DETECTORS.load(name)
        assert issubclass(found, Detector)
        chosen |= {places[kind]: name for kind in found.kinds}
    return Plan(correction=args.correction, alpha=args.alpha, **chosen)


def _of_drift(drift: dict[str, Any]) -> Iterator[str]:
    windows = drift["windows"]
    alarms = sum(window["drifted"] for window in windows)
    chance = f"{drift['alpha']:.0%} of clean ones would"
    told = "drifted" if drift["drifted"] else "not drifted"
    yield (
        f"drift: {told}; {alarms} of {len(windows)} windows alarm ({chance}),"
        f" {len(drift['features'])} features, {drift['correction']}"
    )
    last = windows[-1]["start"] if windows else None
    for name in windows[-1]["moved"][:_FEW] if windows else ():
        yield from _of_feature(next(f for f in drift["features"] if f["name"] == name), last)
    for name, why in list(drift["skipped"].items())[:_FEW]:
        yield f"  not looked at: {name}, {why}"


def _of_feature(feature: dict[str, Any], start: float | None) -> Iterator[str]:
    for window in feature["windows"]:
        if window["start"] == start:
            yield (
                f"  {feature['name']}: {feature['detector'].removeprefix('drift.')}"
                f" {window['score']:.3g}, threshold {window['threshold']:.3g},"
                f" p {window['p']:.2g}, corrected {window['adjusted']:.2g}"
            )


def _of_accuracy(accuracy: dict[str, Any]) -> Iterator[str]:
    proven = f", proven {accuracy['proven']:.2%}" if accuracy["proven"] is not None else ""
    if accuracy["by_labels"]:
        yield (
            f"accuracy by {accuracy['labelled']} labels: {_interval(accuracy['by_labels'])}"
            f" at any time{proven}"
        )
    if accuracy["by_confidence"]:
        yield (
            f"accuracy by confidence: {_interval(accuracy['by_confidence'])}{proven}; calibrated on"
            f" {accuracy['calibrated_on']}; holds while {accuracy['assumptions'][0]}"
        )


def _of_ranges(ranges: dict[str, Any]) -> Iterator[str]:
    if ranges["trouble"]:
        yield f"ranges: {ranges['trouble']}"
        return
    alarms = [layer for layer in ranges["layers"] if layer["alarm"]]
    yield (
        f"ranges: {len(alarms)} of {len(ranges['layers'])} layers clip more than on the reference,"
        f" in {ranges['n']} requests"
    )
    for layer in alarms[:_FEW]:
        yield (
            f"  {layer['layer']}: {layer['clipped']:.2%} clipped, {layer['reference']:.2%} on the"
            f" reference, corrected p {layer['adjusted']:.2g}"
        )


def _interval(known: dict[str, Any]) -> str:
    return f"{known['estimate']:.2%} [{known['low']:.2%}, {known['high']:.2%}]"
