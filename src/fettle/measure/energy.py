"""Energy: joules that the machine's own counters saw, where it has any.

Processors: RAPL, read from Linux' powercap folder (Intel, and AMD since Zen): packages, and memory
where it is counted apart. GPUs: NVML's total energy counter, where the package `nvidia-ml-py` is
installed. Both count everything that ran meanwhile, idle power included; virtual machines hide
them. Where nothing tells, the answer is None with the reason and the mend.

RAPL's counters wrap around after 65 to 260 kJ. One wrap is put right, two can't be seen: keep a
block under two minutes.

Reference: Linux, `Documentation/power/powercap/powercap.rst`; NVIDIA, NVML API reference,
`nvmlDeviceGetTotalEnergyConsumption`.

Example:
    >>> with energy() as found:
    ...     answer = sum(range(99))
    >>> known = found.joules is not None or found.reason is not None
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fettle.core.cgroup import text_of
from fettle.core.errors import InputError

_POWERCAP = Path("/sys/class/powercap")
_ALLOW = "sudo chmod a+r /sys/class/powercap/*/energy_uj"


@dataclass(frozen=True)
class Counter:
    """One counter at one moment: joules, and where it wraps around (None: never)."""

    joules: float
    wraps_at: float | None = None


@dataclass
class Energy:
    """What a block cost; filled in when it ends.

    Attributes:
        joules: of all parts together; None where nothing tells.
        seconds: how long the block took.
        parts: joules by counter, such as "package-0", "dram-0", "gpu-0".
        reason: why there is no number, with the mend.
    """

    joules: float | None = None
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def watts(self) -> float | None:
        """Mean power."""
        return self.joules / self.seconds if self.joules is not None and self.seconds else None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, mean power included."""
        return {**asdict(self), "watts": self.watts}


@contextmanager
def energy(powercap: Path = _POWERCAP) -> Iterator[Energy]:
    """Count the energy of the block; the record is filled in when it ends."""
    found = Energy()
    before, started = read(powercap), time.perf_counter()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - started
        after = read(powercap)
        found.parts = {name: _spent(before[name], after[name]) for name in before if name in after}
        found.joules = sum(found.parts.values()) if found.parts else None
        found.reason = None if found.parts else why_not(powercap)


def energy_per_example(
    run: Callable[[], object], batch: int = 1, seconds: float = 1.0, powercap: Path = _POWERCAP
) -> tuple[float | None, str | None]:
    """Run for about `seconds` and return joules per example, or None and the reason.

    Nothing is run where nothing tells. The counters move about once a millisecond, so that a
    second of runs is right to a thousandth.

    Raises:
        InputError: a batch below 1.
    """
    if batch < 1:
        raise InputError(f"`batch` is expected to be at least 1, got {batch}")
    if not read(powercap):
        return None, why_not(powercap)
    runs, until = 0, time.perf_counter() + seconds
    with energy(powercap) as found:
        while not runs or time.perf_counter() < until:
            run()
            runs += 1
    return None if found.joules is None else found.joules / (runs * batch), found.reason


def read(powercap: Path = _POWERCAP) -> dict[str, Counter]:
    """Return every counter that can be read, by name."""
    return {**_rapl(powercap), **_gpus()}


def why_not(powercap: Path = _POWERCAP) -> str:
    """Return why no counter can be read, with the mend."""
    zones = list(_zones(powercap))
    if zones:
        return f"the energy counters of the processor may not be read; to mend it: {_ALLOW}"
    return (
        "this machine has no energy counters: no RAPL in /sys/class/powercap (virtual machines hide"
        " it; on bare metal: sudo modprobe intel_rapl_msr), and no GPU that NVML tells of"
        " (pip install nvidia-ml-py)"
    )


def _spent(before: Counter, after: Counter) -> float:
    spent = after.joules - before.joules
    return spent + before.wraps_at if spent < 0 and before.wraps_at else max(0.0, spent)


def _rapl(powercap: Path) -> dict[str, Counter]:
    found = {}
    for name, zone in _zones(powercap):
        joules, most = text_of(zone / "energy_uj"), text_of(zone / "max_energy_range_uj")
        if joules.isdigit():
            wraps_at = int(most) / 1e6 if most.isdigit() else None
            found[name] = Counter(int(joules) / 1e6, wraps_at)
    return found


def _zones(powercap: Path) -> Iterator[tuple[str, Path]]:
    """Yield packages, and their memory: cores and GPUs inside of them are counted already.

    "psys", the whole platform, holds the packages again.
    """
    for zone in sorted(powercap.glob("intel-rapl:*")):
        name, place = text_of(zone / "name"), zone.name.split(":")[1:]
        if name.startswith("package") and len(place) == 1:
            yield name, zone
        elif name == "dram" and len(place) == 2:
            yield f"dram-{place[0]}", zone


def _gpus() -> dict[str, Counter]:
    """Read NVML; without the package, the driver or the counter there is nothing."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # a missing package, and a missing driver by NVML's own class
        return {}
    found = {}
    for i in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):  # older than Volta
            handle = nvml.nvmlDeviceGetHandleByIndex(i)
            joules = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
            found[f"gpu-{i}"] = Counter(joules)
    nvml.nvmlShutdown()
    return found
