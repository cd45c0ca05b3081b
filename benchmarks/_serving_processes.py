"""A server as a process of its own: started, waited for, looked at, and ended with its children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PATIENCE = 90.0  # seconds until it answers


class Process:
    """A running server.

    Attributes:
        url: where it listens.
        pid: of its first process, which leads a group of its own.
        said: the file of all it wrote.
    """

    def __init__(self, started: subprocess.Popen[bytes], port: int, said: Path) -> None:
        self.started, self.said = started, said
        self.pid, self.port = started.pid, port
        self.url = f"http://127.0.0.1:{port}"

    def wait(self, path: str) -> None:
        """Return once `path` answers with 200.

        Raises:
            RuntimeError: it ended, or took too long.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.started.poll() is not None:
                raise RuntimeError(f"the server ended: {self.last_words()}")
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(self.url + path, timeout=2).status == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"no answer in {PATIENCE:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of what it wrote."""
        return self.said.read_text(errors="replace")[-1500:]

    def family(self) -> list[int]:
        """Return the ids of the server's processes."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    parents[int(entry.name)] = int(fields[1])
        found = [self.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def memory(self) -> float:
        """Return the MiB that its processes hold (proportional share of what they share)."""
        return sum(_pss(pid) for pid in self.family()) / 1024

    def descriptors(self) -> int:
        """Return how many descriptors its processes have open."""
        total = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                total += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return total

    def stop(self, patience: float = 15.0) -> None:
        """End it: SIGTERM to the first process, then SIGKILL to what is left of the group."""
        family = self.family()
        self.started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.started.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.started.wait()
        for pid in family[1:]:  # those that left the group
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, said: Path, environment: Mapping[str, str] | None = None,
    where: Path | None = None,
) -> Iterator[Process]:  # fmt: skip
    """Start a server, and end it on leaving."""
    with said.open("wb") as stream:
        started = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            cwd=where, env={**os.environ, **(environment or {})}, start_new_session=True,
        )  # fmt: skip
    process = Process(started, port, said)
    try:
        yield process
    finally:
        process.stop()


def free_port() -> int:
    """Return the first of three ports in a row that nobody listens at."""
    for port in range(20_000 + os.getpid() % 5000, 60_000, 3):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for each in range(port, port + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            return port
    raise RuntimeError("no free port")


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
