"""What disturbed a timing run: other processes, the hypervisor, throttling, heat, swapping.

The counters that the kernel keeps anyway are read once before and once after, so that nothing
runs beside what is timed. On a machine that hides its clock rate, a loop of known work takes the
place of the frequency: its best time of several tells how fast the processor is just then.

Example:
    >>> with watched() as found:
    ...     answer = sum(range(99))
    >>> words = found.warning or "quiet"
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from fettle.core.cgroup import text_of, throttled_periods

_BUSY = ("user", "nice", "system", "irq", "softirq")
_SHORTEST = 0.3  # seconds; a processor's time is counted in steps of 10 ms
_OTHERS = 0.05  # share of the processors, but at least a tenth of one
_STEAL = 0.02  # share of the time that was wanted
_SPEED = 0.10  # change of frequency; the spinning loop is believed only past 20 %
_STALL = 0.01  # share of the time


@dataclass(frozen=True)
class Reading:
    """The counters at one moment; None where this machine doesn't tell.

    Attributes:
        at: seconds of a steady clock.
        busy: processor-seconds that the processors of this process worked, for anybody.
        own: processor-seconds of this process and of its children that have ended.
        steal: processor-seconds that the hypervisor gave to others.
        speed: mean clock rate in MHz, or turns of the spinning loop in a second.
        throttled: periods in which the control group was stopped.
        swapped: pages swapped in and out.
        stalled: seconds in which some process waited for memory.
        heat: times that a core was slowed down for its temperature.
    """

    at: float
    busy: float
    own: float
    steal: float | None = None
    speed: float | None = None
    throttled: int | None = None
    swapped: int | None = None
    stalled: float | None = None
    heat: int | None = None


@dataclass
class Interference:
    """What disturbed the block; filled in when it ends.

    Attributes:
        seconds: how long the block took.
        processors: how many this process may run on.
        other_load: processors that others kept busy, on average.
        steal: share of the wanted processor time that the hypervisor gave to others.
        speed_change: speed of the processor after over before, less 1.
        speed_by: "frequency" as read, or "loop".
        throttled_periods: in which the container was stopped at its quota.
        swapped_pages: pages swapped in and out, by anybody.
        memory_stall: share of the time in which some process waited for memory.
        heat_events: times that a core was slowed down for its temperature.
    """

    seconds: float = 0.0
    processors: int = 1
    other_load: float | None = None
    steal: float | None = None
    speed_change: float | None = None
    speed_by: str = "frequency"
    throttled_periods: int | None = None
    swapped_pages: int | None = None
    memory_stall: float | None = None
    heat_events: int | None = None

    @property
    def warning(self) -> str | None:
        """What falsified the timing, in one sentence, or None when the machine was quiet."""
        found = [*self._load_warnings(), *self._other_warnings()]
        return "; ".join(found) or None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, `warning` included."""
        return {**asdict(self), "warning": self.warning}

    def _load_warnings(self) -> Iterator[str]:
        if self.seconds < _SHORTEST:
            return
        if (self.other_load or 0) > max(0.1, _OTHERS * self.processors):
            yield f"other processes kept {self.other_load:.1f} of {self.processors} processors busy"
        if (self.steal or 0) > _STEAL:
            yield f"the hypervisor gave {self.steal:.0%} of the processor time to others"

    def _other_warnings(self) -> Iterator[str]:
        bound = _SPEED if self.speed_by == "frequency" else 2 * _SPEED
        if abs(self.speed_change or 0) > bound:
            yield f"the processor's speed changed by {self.speed_change:+.0%} ({self.speed_by})"
        if self.throttled_periods:
            yield f"the container was stopped at its CPU quota {self.throttled_periods} times"
        if self.heat_events:
            yield f"cores were slowed down for heat {self.heat_events} times"
        if self.swapped_pages:
            yield f"{self.swapped_pages} pages were swapped"
        if (self.memory_stall or 0) > _STALL:
            yield f"processes waited for memory {self.memory_stall:.0%} of the time"


@contextmanager
def watched() -> Iterator[Interference]:
    """Watch for interference inside the block; the record is filled in when it ends.

    Each of the two readings takes about a millisecond. Children that still live when the block
    ends count as others.
    """
    found = Interference()
    before = read()
    try:
        yield found
    finally:
        found.__dict__.update(between(before, read()).__dict__)


def between(before: Reading, after: Reading) -> Interference:
    """Return what happened between two readings."""
    seconds = max(after.at - before.at, 1e-9)
    busy, own = after.busy - before.busy, after.own - before.own
    steal = _change(before.steal, after.steal)
    stalled = _change(before.stalled, after.stalled)
    throttled, swapped, heat = (
        None if (found := _change(getattr(before, name), getattr(after, name))) is None
        else int(found) for name in ("throttled", "swapped", "heat")
    )  # fmt: skip
    return Interference(
        seconds=seconds,
        processors=_processors(),
        other_load=max(0.0, busy - own) / seconds,
        steal=None if steal is None else steal / max(busy + steal, 1e-9),
        speed_change=after.speed / before.speed - 1 if before.speed and after.speed else None,
        speed_by="frequency" if _frequency() else "loop",
        throttled_periods=throttled,
        swapped_pages=swapped,
        memory_stall=None if stalled is None else stalled / seconds,
        heat_events=heat,
    )


def read() -> Reading:
    """Read the counters as they stand now."""
    times = _processor_times()
    own = os.times()
    return Reading(
        at=time.perf_counter(),
        busy=sum(getattr(one, name, 0.0) for one in times for name in _BUSY),
        own=own.user + own.system + own.children_user + own.children_system,
        steal=sum(one.steal for one in times) if hasattr(times[0], "steal") else None,
        speed=_frequency() or _loop_speed(),
        throttled=throttled_periods(),
        swapped=_swapped(),
        stalled=_stalled(),
        heat=_heat(),
    )


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)


def _usable() -> set[int] | None:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _processors() -> int:
    return len(_usable() or ()) or os.cpu_count() or 1


def _processor_times() -> list[Any]:
    """Return the counters of the processors that this process may run on."""
    every, usable = psutil.cpu_times(percpu=True), _usable()
    chosen = [one for i, one in enumerate(every) if usable is None or i in usable]
    return chosen or every  # numbers have gaps where a processor is off line


def _frequency(root: Path = Path("/")) -> float | None:
    """Return the mean clock rate in MHz of the first usable processors, or None if hidden."""
    cores = sorted(_usable() or ())[:16]
    folder = root / "sys/devices/system/cpu"
    texts = [text_of(folder / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    rates = [int(text) / 1000 for text in texts if text.isdigit()]
    return sum(rates) / len(rates) if rates else None


def _loop_speed(times: int = 8, turns: int = 2000) -> float:
    """Return how many turns of an empty loop fit into a second, at the best of several tries."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        for _ in range(turns):
            pass
        best = min(best, time.perf_counter() - start)
    return turns / max(best, 1e-9)


def _swapped(root: Path = Path("/")) -> int | None:
    lines = text_of(root / "proc/vmstat").splitlines()
    counts = [int(line.split()[1]) for line in lines if line.startswith(("pswpin ", "pswpout "))]
    return sum(counts) if counts else None


def _stalled(root: Path = Path("/")) -> float | None:
    """Return the seconds in which some process waited for memory (`/proc/pressure`)."""
    for line in text_of(root / "proc/pressure/memory").splitlines():
        if line.startswith("some"):
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def _heat(root: Path = Path("/")) -> int | None:
    folder = root / "sys/devices/system/cpu"
    names = [folder / f"cpu{core}/thermal_throttle/core_throttle_count" for core in _usable() or ()]
    counts = [int(text) for name in names[:16] if (text := text_of(name)).isdigit()]
    return sum(counts) if counts else None
