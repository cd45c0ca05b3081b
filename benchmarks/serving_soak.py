"""A soak: half an hour at half of what the server can do; memory and descriptors as they go.

Capacity is measured first, with `wrk` over 16 connections. Then 16 connections that stay open send
half of it, evenly; once in `--every` seconds the server's memory (proportional share, all of its
processes) and descriptors are read. The first fifth is warm-up. The slope of memory is a straight
line's, its interval from blocks of readings, which are not independent of each other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from _results import record, table
from _serving_bodies import Ask, outputs, protocol
from _serving_environments import DEFAULT
from _serving_load import load
from _serving_models import subject
from _serving_processes import Process
from _serving_servers import SERVERS
from scipy import stats

MODELS = Path(__file__).resolve().parent.parent / "runs" / "serving"
CONNECTIONS = 16
BLOCKS = 8
Reading = tuple[float, float, int]  # seconds, MiB, descriptors


def main() -> None:
    """Measure capacity, soak, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=5, help="seconds between readings")
    parser.add_argument("--share", type=float, default=0.5, help="of capacity")
    options = parser.parse_args()
    each = subject("small", MODELS)
    ask = protocol(each.input, each.x, binary=False)
    with tempfile.TemporaryDirectory() as folder:
        with SERVERS["fettle"].serving(each, DEFAULT, Path(folder)) as process:
            load(process.url, ask, CONNECTIONS, 3)
            capacity = load(process.url, ask, CONNECTIONS, 10).rate
            soak = Soak(process, ask, each.y, options.share * capacity)
            asyncio.run(soak.run(60 * options.minutes, options.every))
        size = sum(file.stat().st_size for file in Path(folder).glob("predictions.db*"))
    title = f"A soak of {options.minutes:g} minutes at {options.share:.0%} of capacity"
    record("serving-soak", title, report(soak, capacity, size))


class Soak:
    """A steady load over connections that stay open.

    Attributes:
        ends: how the requests ended: "right", or what went wrong.
        readings: of the server.
    """

    def __init__(self, process: Process, ask: Ask, expected: np.ndarray, rate: float) -> None:
        self.process, self.ask, self.expected, self.rate = process, ask, expected, rate
        self.ends: Counter[str] = Counter()
        self.readings: list[Reading] = []

    async def run(self, seconds: float, every: float) -> None:
        """Go on for so long."""
        begin = time.monotonic()
        callers = [self._caller(begin + i / self.rate, seconds) for i in range(CONNECTIONS)]
        await asyncio.gather(*callers, self._watch(begin, seconds, every))

    async def _watch(self, begin: float, seconds: float, every: float) -> None:
        while (now := time.monotonic() - begin) < seconds:
            read = await asyncio.to_thread(self._read)
            self.readings.append((now, *read))
            print(f"{now:.0f} s, {read[0]:.1f} MiB, {read[1]} descriptors", file=sys.stderr)
            await asyncio.sleep(every)

    def _read(self) -> tuple[float, int]:
        return self.process.memory(), self.process.descriptors()

    async def _caller(self, due: float, seconds: float) -> None:
        end = due + seconds
        while due < end:  # a connection that broke is opened anew
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.process.port)
                while due < end:
                    await asyncio.sleep(max(due - time.monotonic(), 0))
                    due = max(due + CONNECTIONS / self.rate, time.monotonic() - 1)
                    self.ends[await self._one(reader, writer)] += 1
                writer.close()
                return
            self.ends["broken connection"] += 1
            await asyncio.sleep(0.1)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        lines = [f"POST {self.ask.path} HTTP/1.1", "Host: localhost",
                 f"Content-Length: {len(self.ask.body)}"]  # fmt: skip
        lines += [f"{key}: {value}" for key, value in self.ask.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + self.ask.body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n")
                      if line.lower().startswith(b"content-length:"))  # fmt: skip
        body = await reader.readexactly(length)
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            return status
        close = np.allclose(outputs(body, None), self.expected, rtol=0.02, atol=0.02)
        return "right" if close else "wrong numbers"


def report(soak: Soak, capacity: float, size: int) -> list[str]:
    """Return the tables."""
    steady = soak.readings[len(soak.readings) // 5 :]
    hours, memory = (np.array(column) for column in zip(*((t / 3600, m) for t, m, _ in steady),
                                                        strict=True))  # fmt: skip
    slope, low, high = slope_of(hours, memory)
    counts = [count for _, _, count in steady]
    done = sum(soak.ends.values())
    last = soak.readings[-1][0] or 1.0
    rows = [
        ["capacity, requests/s", f"{capacity:.0f}"],
        ["sent, requests/s", f"{done / last:.0f}"],
        *([f"ended: {end}", str(count)] for end, count in soak.ends.most_common()),
        ["memory after warm-up, MiB", f"{memory[0]:.1f}"],
        ["memory at the end, MiB", f"{memory[-1]:.1f}"],
        ["slope, MiB an hour", f"{slope:+.2f} [{low:+.2f}, {high:+.2f}]"],
        ["descriptors after warm-up", str(counts[0])],
        ["descriptors, least and most", f"{min(counts)}, {max(counts)}"],
        ["descriptors at the end", str(counts[-1])],
        ["log, MiB", f"{size / 2**20:.1f}"],
    ]
    tenth = max(len(soak.readings) // 10, 1)
    course = [[f"{t / 60:.1f}", f"{m:.1f}", str(c)] for t, m, c in soak.readings[::tenth]]
    return [*table(["what", "value"], rows), "", *table(["minute", "MiB", "descriptors"], course)]


def slope_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return the slope of y over x with a 95 % interval, of the means of blocks."""
    blocks = min(BLOCKS, len(x))
    means = [[part.mean() for part in np.array_split(each, blocks)] for each in (x, y)]
    if blocks < 3:
        return float("nan"), float("nan"), float("nan")
    fit = stats.linregress(*means)
    half = float(fit.stderr * stats.t.ppf(0.975, blocks - 2))
    return float(fit.slope), float(fit.slope) - half, float(fit.slope) + half


if __name__ == "__main__":
    main()
