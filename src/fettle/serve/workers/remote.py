"""One worker process, seen from the server: a session whose engine runs in another process."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import CheckFailed, FettleError, InputError, ModelError
from fettle.runtimes import Session
from fettle.serve.workers.channel import Channel
from fettle.serve.workers.memory import SharedMemory

_START_S = 300.0  # the largest models, on a disk that is cold


class WorkerLost(FettleError):
    """A worker process died, or hung and was killed, before it answered."""

    exit_code = 1


class Job(NamedTuple):
    """What a worker process serves.

    Attributes:
        bundle: the folder, which stays as it is as long as the server runs.
        sha: of its manifest.
        threads: of the engine; 0 leaves it to the bundle.
        longest_s: after how long a run is taken to hang.
    """

    bundle: Path
    sha: str
    threads: int
    longest_s: float


class Remote(Session):
    """A worker process; it runs one batch at a time, and one thread may ask at once.

    Raises:
        ModelError: it can't open the bundle; the message says why.
        WorkerLost: it ended before it was ready.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._memory = SharedMemory.create()
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        with theirs:
            self._process = _begin(theirs, self._memory)
        try:
            self.inputs, self.outputs = self._ready()
        except BaseException:
            self.close()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        """Which process it is."""
        return self._process.pid

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name, as any session does.

        Raises:
            InputError: the engine refuses the inputs.
            ModelError: it fails on them.
            WorkerLost: the process died or hung; nothing more can be asked of it.
        """
        places = self._memory.write(inputs)
        reply = self._talk({"inputs": places}, self._job.longest_s)
        if "input" in reply:
            raise InputError(reply["input"])
        if "failed" in reply:
            raise ModelError(reply["failed"])
        # copies: the memory is the next batch's
        return {name: np.array(a) for name, a in self._memory.read(reply["outputs"]).items()}

    def wait(self) -> int:
        """Wait until the process ends; return its exit status, -9 if it was killed by signal 9."""
        return self._process.wait()

    def kill(self) -> None:
        """End the process, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Let the process end, once it has computed what it began."""
        self._channel.close()
        self._memory.close()

    def _ready(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        asked = {
            "bundle": str(self._job.bundle),
            "sha": self._job.sha,
            "threads": self._job.threads,
        }
        reply = self._talk(asked, _START_S)
        if "refused" in reply:
            raise ModelError(reply["refused"])
        return _specs(reply["inputs"]), _specs(reply["outputs"])

    def _talk(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            self._channel.send(message)
            return self._channel.receive(seconds)
        except TimeoutError as error:
            self.kill()
            raise WorkerLost(
                f"worker process {self.pid} gave no answer in {seconds:g} s and was killed"
            ) from error
        except (OSError, EOFError) as error:
            self.kill()
            raise WorkerLost(f"worker process {self.pid} ended before it answered") from error


def _begin(theirs: socket.socket, memory: SharedMemory) -> subprocess.Popen[bytes]:
    descriptors = (theirs.fileno(), memory.descriptor)
    # -P: nothing in the folder that the server happens to be started in is imported
    command = [sys.executable, "-P", "-m", "fettle.serve.workers", *map(str, descriptors)]
    try:
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server's own belongs to `--json`
            start_new_session=True,  # Ctrl-C is for the server, which drains
        )
    except OSError as error:
        raise CheckFailed(f"a worker process could not be started: {error}") from error


def _specs(told: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in told)
