"""The process whose memory is measured: `python -m fettle.measure._memory_probe JSON`.

Its last line on stdout is a JSON object: `peak_bytes` and `baseline_bytes`, or `refused`.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.arrays import TensorSpec
from fettle.core.errors import FettleError
from fettle.core.shelf import RUNTIMES

_STATUS = Path("/proc/self/status")


def probe(asked: dict[str, Any]) -> dict[str, Any]:
    """Build the session, run it, and return the marks; or why the runtime refused."""
    try:
        runtime: Any = RUNTIMES.make(asked["runtime"], **asked["knobs"])
        _import_engine(asked["runtime"])
        baseline = high_water()
        session = runtime.build(Path(asked["model"]), asked["lowering"])
        inputs = {spec.name: _zeros(spec, asked) for spec in session.inputs}
        for _ in range(asked["runs"]):
            session.run(inputs)
    except FettleError as error:
        return {"refused": str(error)}
    except Exception as error:  # whatever an engine throws at run time, the parent should hear
        return {"refused": f"{asked['runtime']} can't run the model: {error}"}
    return {"peak_bytes": high_water(), "baseline_bytes": baseline}


def high_water() -> int:
    """Return this process's peak resident memory in bytes.

    VmHWM where the system has it: getrusage's number is inherited from the parent on Linux.
    """
    with suppress(OSError, ValueError, IndexError):
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        mark = next((line for line in lines if line.startswith("VmHWM:")), "")
        return int(mark.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _import_engine(name: str) -> None:
    """Some runtimes import their engine when they build; for the baseline it has to be here."""
    with suppress(ImportError):
        importlib.import_module(name)


def _zeros(spec: TensorSpec, asked: dict[str, Any]) -> np.ndarray:
    """Written, not np.zeros: memory that nobody touched is not resident."""
    rest = asked["shapes"].get(spec.name) or [max(size, 1) for size in spec.shape[1:]]
    batch = spec.shape[:1] if spec.shape[:1] > (0,) else (asked["batch"],)
    return np.full((*batch, *rest) if spec.shape else (), 0, dtype=spec.dtype)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(json.loads(sys.argv[1]))) + "\n")
