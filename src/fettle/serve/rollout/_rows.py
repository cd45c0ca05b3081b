"""Rows of the log as rollouts read and write them."""

from __future__ import annotations

from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError
from fettle.monitor.answered import Answered
from fettle.monitor.prediction import Prediction
from fettle.serve._packing import rows_of
from fettle.serve.rollout._agreement import Agreement
from fettle.serve.rollout._mirror import Mirrored

SHADOW = "shadow"
_US = 1e-6  # seconds


def shadow_row(mirrored: Mirrored, agreement: Agreement | None = None) -> Answered:
    """Return what is logged of a request that was answered again: its own id, another's answer.

    Args:
        mirrored: what came of asking the other model.
        agreement: of both answers; None where they can't be compared.
    """
    seen, model = mirrored.seen, mirrored.model
    return seen._replace(
        version=model.version,
        sha=model.sha,
        route=SHADOW,
        timing=(0.0, mirrored.compute_s, rows_of(seen.inputs)),
        total_s=mirrored.compute_s,
        outputs=mirrored.outputs,
        error=mirrored.error,
        agreement=None if agreement is None else 1 - agreement.disagreement,
    )


def told(prediction: Prediction, inputs: Arrays, outputs: Arrays | None) -> Answered:
    """Return what a service saw, from the row that was made of it."""
    row = prediction
    return Answered(
        id=row.id,
        time_ns=row.time,
        model=row.model,
        version=row.version,
        sha=row.sha,
        route=row.route,
        key=row.key,
        protocol=row.protocol,
        timing=(row.queue_us * _US, row.compute_us * _US, row.batch),
        total_s=row.total_us * _US,
        inputs=inputs,
        outputs=outputs,
        error=FettleError(f"{row.status}: {row.error}") if row.failed else None,
    )
