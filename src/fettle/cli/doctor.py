"""Say what this machine can run, and how to mend what it can't."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from fettle.cli._doctor_checks import problems
from fettle.cli._doctor_packages import conflicts, extras
from fettle.cli._doctor_text import text
from fettle.cli._outcome import Outcome
from fettle.core.errors import FettleError
from fettle.core.machine import Machine, this_machine, versions
from fettle.core.shelf import INSTALL, RUNTIMES
from fettle.measure import watched
from fettle.runtimes import Runtime, smoke


def options(parser: argparse.ArgumentParser) -> None:
    """There are none."""
    del parser


def run(args: argparse.Namespace) -> Outcome:
    """Examine the machine; a runtime that works is one that built and ran a small graph."""
    del args
    machine = this_machine()
    faults = {name: _examine(name) for name in RUNTIMES.names()}
    missing = {name: mend for name, mend in INSTALL.items() if not importlib.util.find_spec(name)}
    with watched() as found:
        _listen()
    data: dict[str, Any] = {
        "machine": machine.to_json(),
        "versions": versions(),
        "runtimes": {n: {"works": f is None, "fault": f} for n, f in faults.items()},
        "missing": missing,
        "advice": _advice(machine),
        "precisions": _precisions(machine),
        "extras": extras(),
        "conflicts": conflicts(),
        "problems": [problem.to_json() for problem in problems(machine)],
        "interference": found.to_json(),
    }
    return Outcome(data, text(data), 0 if None in faults.values() else 3)


def _examine(name: str) -> str | None:
    try:
        runtime = RUNTIMES.make(name)
        assert isinstance(runtime, Runtime)
        return smoke(runtime)
    except FettleError as error:
        return str(error)


def _listen(seconds: float = 0.4) -> None:
    """Do nothing for a moment, so that all that is heard are others."""
    import time

    time.sleep(seconds)


def _precisions(machine: Machine) -> dict[str, bool]:
    """Say which number formats the processor has matrix instructions for."""
    return {"int8": machine.has_vnni, "bf16": machine.has_bf16, "fp16": machine.has_fp16}


def _advice(machine: Machine) -> list[str]:
    advice = []
    if machine.is_x86 and not machine.has_vnni:
        advice.append(
            "this processor has no VNNI: INT8 gains little and uint8 × int8 products may saturate;"
            " see: fettle inspect MODEL --data D --saturation"
        )
    quota = machine.details.cpu_quota
    if quota is not None:
        advice.append(
            f"the container may use {quota:g} processors, so fettle uses {machine.threads}"
            f" thread{'s' if machine.threads > 1 else ''}"
        )
    return advice
