"""Whether an INT8 artifact is computed wrongly here, for want of VNNI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError
from fettle.core.machine import Machine
from fettle.measure.saturation import saturation_of

EXAMPLES = 8


def saturates_on(machine: Machine) -> bool:
    """Say whether a processor cuts sums of 8-bit products to 16 bits."""
    return machine.is_x86 and not machine.has_vnni


def saturation_in(path: Path, inputs: Arrays, lowering: Sequence[str] = ()) -> dict[str, Any]:
    """Return what saturates without VNNI, or a warning that says why that can't be told."""
    try:
        return saturation_of(path, inputs, lowering).to_json()
    except (FettleError, RuntimeError) as error:
        return {"share": None, "warning": f"saturation can't be told: {error}"}


def saturation_check(
    path: Path, inputs: Arrays, lowering: Sequence[str], machine: Machine
) -> tuple[dict[str, Any], ...]:
    """Return a bundle's check of what runs on `machine`; none where nothing can saturate.

    `share` is of the pairs of products that are cut; None where it can't be told.
    """
    if not saturates_on(machine):
        return ()
    found = saturation_in(path, inputs, lowering)
    share, warning = found["share"], found["warning"]
    return ({"name": "saturation", "passed": share == 0, "share": share, "warning": warning},)
