"""The table of kernels: what each takes on one engine of this machine, kept between studies.

It lies in the cache folder, under the processor, the engine with all its knobs, and the versions:
with others, all is measured anew. A cache that can't be written costs time, nothing else.

Each sheet holds one kernel that is always the same. Where that takes another time than it took at
first, the machine has become slower or faster, and what is measured beside it is scaled back.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from fettle.core.cache import cache_folder
from fettle.core.errors import FettleError, StorageError
from fettle.core.files import write_json
from fettle.core.hashing import fingerprint
from fettle.core.machine import this_machine, versions
from fettle.runtimes import Runtime
from fettle.search._kernel_sheet import footprint, measured, reference
from fettle.search._kernels import Kernel

_FORMAT = 1
_ENGINES = ("fettle", "onnxruntime", "openvino", "tensorrt", "numpy")
_LARGEST_SHEET = 128 << 20  # bytes
_MOST_ON_A_SHEET = 40
_STEADY = 0.05  # relative; less is the reference's own noise, and no drift of the machine


class KernelTable:
    """Milliseconds by the key of a kernel, for one runtime with its knobs.

    `folder` is where it is kept; by default, in fettle's own cache.
    """

    def __init__(self, runtime: Runtime, folder: Path | None = None) -> None:
        self.runtime = runtime
        self._path = (folder or cache_folder() / "kernels") / f"{_stamp(runtime)}.json"
        self._ms = _read(self._path)

    def __len__(self) -> int:
        return len(self._ms)

    def of(self, kernels: Sequence[Kernel]) -> list[float]:
        """Return what each kernel takes in ms, measuring those that are not known.

        Raises:
            ModelError: the engine refuses a kernel, or doesn't tell times.
        """
        missing = self.missing(kernels)
        if missing:
            for sheet in _sheets(missing):
                self._measure(sheet)
            self._keep()
        return [self._ms[kernel.key] for kernel in kernels]

    def missing(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """Return those that are not known, each kind once."""
        unknown = {kernel.key: kernel for kernel in kernels if kernel.key not in self._ms}
        return list(unknown.values())

    def _measure(self, kernels: Sequence[Kernel]) -> None:
        try:
            found = self._beside_reference(kernels)
        except FettleError:
            found = [0.0] * len(kernels)
        for kernel, ms in zip(kernels, found, strict=True):
            # what the engine refused in company, or gave no row that bears its name, is timed alone
            self._ms[kernel.key] = ms or measured([kernel], self.runtime)[0]

    def _beside_reference(self, kernels: Sequence[Kernel]) -> list[float]:
        """Return what each kernel takes while the reference takes what it took at first."""
        steady = reference(kernels[0].opsets)
        now, *found = measured([steady, *kernels], self.runtime)
        if not now:
            return found
        drift = now / self._ms.setdefault(steady.key, now)
        return found if abs(drift - 1) < _STEADY else [ms / drift for ms in found]

    def _keep(self) -> None:
        """Write the table, with what another study has written meanwhile."""
        self._ms = _read(self._path) | self._ms
        with contextlib.suppress(StorageError):
            write_json(self._path, {"runtime": str(self.runtime), "ms": self._ms})


def _stamp(runtime: Runtime) -> str:
    machine = this_machine()
    engines = {name: found for name, found in versions().items() if name in _ENGINES}
    about = [runtime.name(), runtime.values(), machine.cpu, machine.isa, machine.threads, engines]
    return fingerprint([_FORMAT, *about])


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["ms"]
        return {str(key): float(ms) for key, ms in found.items() if 0 <= ms < math.inf}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # not there, or not ours: measure


def _sheets(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Share the kernels among sheets that fit into memory."""
    sheets: list[list[Kernel]] = []
    room = 0
    for kernel in kernels:
        size = footprint(kernel)
        full = not sheets or size > room or len(sheets[-1]) >= _MOST_ON_A_SHEET
        if full or kernel.opsets != sheets[-1][0].opsets:
            sheets.append([])
            room = _LARGEST_SHEET
        sheets[-1].append(kernel)
        room -= size
    return sheets
