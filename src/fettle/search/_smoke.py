"""Does an opened session run? Once, before anything is timed or scored."""

from __future__ import annotations

from fettle import measure
from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError
from fettle.runtimes import Session


def fault_of(session: Session, inputs: Arrays) -> str | None:
    """Return what the engine says against running `inputs` (batch first), or None.

    Raises:
        InputError: the model takes other inputs than these.
    """
    try:
        measure.run_batch(session, inputs)
    except (FettleError, MemoryError):
        raise
    except Exception as error:  # engines' exceptions have no public base
        n = next((len(array) for array in inputs.values() if array.ndim), 1)
        return f"fails at batch {n}: {_last_line(error)}"
    return None


def said(error: Exception) -> str:
    """Return what an error says; of foreign ones the first line, with their kind in front."""
    if isinstance(error, FettleError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
