"""Say what this machine can run, and how to mend what it can't."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from fettle.cli._outcome import Outcome
from fettle.core.errors import FettleError
from fettle.core.machine import this_machine, versions
from fettle.core.shelf import INSTALL, RUNTIMES
from fettle.runtimes import Runtime, smoke


def options(parser: argparse.ArgumentParser) -> None:
    """There are none."""
    del parser


def run(args: argparse.Namespace) -> Outcome:
    """Examine the machine; a runtime that works is one that built and ran a small graph."""
    del args
    machine = this_machine()
    runtimes = {name: _examine(name) for name in RUNTIMES.names()}
    packages = [p for p in INSTALL if importlib.util.find_spec(p) is None]
    missing = {package: INSTALL[package] for package in packages}
    working = [name for name, fault in runtimes.items() if fault is None]
    data: dict[str, Any] = {
        "machine": machine.to_json(),
        "versions": versions(),
        "runtimes": {n: {"works": f is None, "fault": f} for n, f in runtimes.items()},
        "missing": missing,
        "advice": _advice(),
    }
    return Outcome(data, _text(data), 0 if working else 3)


def _examine(name: str) -> str | None:
    try:
        runtime = RUNTIMES.make(name)
        assert isinstance(runtime, Runtime)
        return smoke(runtime)
    except FettleError as error:
        return str(error)


def _advice() -> list[str]:
    machine = this_machine()
    advice = []
    if machine.is_x86 and not machine.has_vnni:
        advice.append(
            "this processor has no VNNI: INT8 gains little and uint8 × int8 products may saturate"
        )
    return advice


def _text(data: dict[str, Any]) -> str:
    machine = data["machine"]
    lines = [
        f"processor   {machine['cpu']}, {machine['threads']} threads",
        f"instructions {', '.join(machine['isa']) or 'nothing special'}",
    ]
    for name, state in data["runtimes"].items():
        lines.append(f"  {name:<12} {'works' if state['works'] else state['fault']}")
    lines += [f"  {package:<12} not installed: {mend}" for package, mend in data["missing"].items()]
    lines += data["advice"]
    return "\n".join(lines)
