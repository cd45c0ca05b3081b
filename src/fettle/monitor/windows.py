"""Windows over a log: by time or by count, one at a time, none larger than memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fettle.core.errors import InputError
from fettle.monitor.frame import Frame, joined

MOST = 100_000  # rows that a window holds; a larger one is sampled
_SECOND = 10**9


@dataclass(frozen=True, eq=False)
class Window:
    """Rows that lie together.

    Attributes:
        start: the beginning, in nanoseconds of the epoch: of the window by time, of its first row
            by count.
        stop: the end, likewise; no row lies past it.
        n: how many rows it has.
        frame: the rows, in the order of time; of more than `most`, a uniform sample of so many.
    """

    start: int
    stop: int
    n: int
    frame: Frame


def by_time(
    frames: Iterable[Frame], seconds: float, most: int = MOST, seed: int = 0
) -> Iterator[Window]:
    """Yield windows of `seconds` each, aligned to the epoch; those without rows are left out.

    Args:
        frames: in the order of time, as `LogFile.frames` yields them.
        seconds: how long a window is.
        most: rows that one holds; of more, each has the same chance to be among them.
        seed: of that sample.

    Raises:
        InputError: no positive length or number, or rows whose times go backwards.
    """
    width = _width(seconds)
    _positive("most", most)
    gathered, current = _Sample(most, seed), None
    for frame in _ordered(frames):
        numbers = frame["time"] // width
        for number in np.unique(numbers):
            if current is not None and number != current and gathered.n:
                yield gathered.window(current * width, (current + 1) * width)
                gathered = _Sample(most, seed)
            current = int(number)
            gathered.add(frame.take(numbers == number))
    if current is not None:
        yield gathered.window(current * width, (current + 1) * width)


def by_count(frames: Iterable[Frame], count: int, last: bool = True) -> Iterator[Window]:
    """Yield windows of `count` rows each.

    Args:
        frames: in the order of time, as `LogFile.frames` yields them.
        count: rows of a window.
        last: whether what is left at the end makes a window too.

    Raises:
        InputError: no positive number, or rows whose times go backwards.
    """
    _positive("count", count)
    held: list[Frame] = []
    length = 0
    for frame in _ordered(frames):
        held.append(frame)
        length += len(frame)
        while length >= count:
            together = joined(held)
            yield _whole(together.take(slice(count)))
            held, length = [together.take(slice(count, None))], length - count
    if length and last:
        yield _whole(joined(held))


class _Sample:
    """Rows of one window: all of them, or those with the smallest of random numbers."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._random = most, np.random.default_rng(seed)
        self._frames: list[Frame] = []
        self._chances: list[np.ndarray] = []
        self._held = self.n = 0

    def add(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._chances.append(self._random.random(len(frame)))
        self._held += len(frame)
        self.n += len(frame)
        if self._held > 2 * self._most:
            self._thin()

    def window(self, start: int, stop: int) -> Window:
        self._thin()
        return Window(start, stop, self.n, self._frames[0])

    def _thin(self) -> None:
        frame, chances = joined(self._frames), np.concatenate(self._chances)
        if len(frame) > self._most:
            kept = np.sort(np.argpartition(chances, self._most - 1)[: self._most])
            frame, chances = frame.take(kept), chances[kept]
        self._frames, self._chances, self._held = [frame], [chances], len(frame)


def _ordered(frames: Iterable[Frame]) -> Iterator[Frame]:
    before = -(2**63)
    for frame in frames:
        if not len(frame):
            continue
        times = frame["time"]
        if times[0] < before or (times[1:] < times[:-1]).any():
            raise InputError(
                "windows expect rows in the order of time; read them with ordered=True"
            )
        before = int(times[-1])
        yield frame


def _whole(frame: Frame) -> Window:
    times = frame["time"]
    return Window(int(times[0]), int(times[-1]), len(frame), frame)


def _width(seconds: float) -> int:
    if not 1e-9 <= seconds <= 1e9:
        raise InputError(f"`seconds` expects a length from 1e-9 to 1e9, got {seconds!r}")
    return max(1, round(seconds * _SECOND))


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"`{name}` expects a number from 1, got {value!r}")
