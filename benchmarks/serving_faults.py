"""Faults under a steady load: which requests are lost, and whether the log accounts for each.

Twenty requests a second, each with an id of its own on a connection of its own, while something
happens to the server halfway. A request is lost when it isn't answered, or not with 200 and the
right numbers. Faults of options that this `fettle serve` doesn't offer are named as not run. The
disk that fills up is a small tmpfs and needs root; the clock that jumps is that of `libfaketime`
where it is installed (apt install libfaketime).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from _results import record, table
from _serving_models import Subject, subject
from _serving_processes import Process, free_port, running
from _serving_steady import logged, steady

from fettle.core.bundle import MANIFEST, Bundle, write_bundle

MODELS = Path(__file__).resolve().parent.parent / "runs" / "serving"
PROGRAM = str(Path(sys.executable).with_name("fettle"))
CONNECTIONS = 200  # of the slow-loris


@dataclass
class Stage:
    """Where a fault happens.

    Attributes:
        folder: of the bundle, the log and whatever the fault needs.
        subject: the model.
        seconds: how long the load goes on.
        options: of `fettle serve`, which a fault may add to before the start.
        environment: variables of the server, likewise.
        process: the server, once it runs.
    """

    folder: Path
    subject: Subject
    seconds: float
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    process: Process | None = None

    @property
    def bundle(self) -> Path:
        """The bundle that is served."""
        return self.folder / "bundle"

    @property
    def log(self) -> Path:
        """The prediction log."""
        return self.folder / "log" / "predictions.db"

    @property
    def server(self) -> Process:
        """The running server."""
        assert self.process is not None
        return self.process


Fault = Callable[[Stage], Iterator[None]]
"""Makes ready, yields, happens when it is taken up again, and yields until the load is over."""


def none(stage: Stage) -> Iterator[None]:
    """Nothing happens: the control."""
    del stage
    yield
    yield


def worker_killed(stage: Stage) -> Iterator[None]:
    """`kill -9` of a worker process, three times."""
    stage.options += ["--isolate", "2"]
    yield
    for _ in range(3):
        children = _workers(stage)
        assert children, "no worker processes"
        os.kill(children[-1], signal.SIGKILL)
        time.sleep(stage.seconds / 10)
    yield


def _workers(stage: Stage) -> list[int]:
    """Return the processes that hold engines; the dashboard's is none."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in stage.server.family()[1:]}
    return [pid for pid, command in commands.items() if b"fettle.serve.workers" in command]


def reloaded(stage: Stage) -> Iterator[None]:
    """Another bundle is put in its place, then SIGHUP; five times."""
    yield
    for _ in range(5):
        swap(stage)
        os.kill(stage.server.pid, signal.SIGHUP)
        time.sleep(stage.seconds / 12)
    yield


def folder_swapped(stage: Stage) -> Iterator[None]:
    """The folder is replaced under it, five times, with the watch on."""
    stage.options += ["--watch-seconds", "1"]
    yield
    for _ in range(5):
        swap(stage)
        time.sleep(stage.seconds / 12)
    yield


def disk_full(stage: Stage) -> Iterator[None]:
    """The log's disk is full for a third of the time."""
    place = stage.log.parent
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise NotHere("mounting a tmpfs needs root")
    try:
        yield
        with contextlib.suppress(OSError), (place / "filler").open("wb", 0) as stream:
            while stream.write(b"\0" * 4096):
                pass
        time.sleep(stage.seconds / 3)
        (place / "filler").unlink()
        yield
        shutil.copytree(place, stage.folder / "kept")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
    shutil.copytree(stage.folder / "kept", place, dirs_exist_ok=True)


def clock_jump(stage: Stage) -> Iterator[None]:
    """The wall clock jumps a year ahead, then two back; the monotonic one goes on."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise NotHere("libfaketime isn't installed")
    told = stage.folder / "clock"
    told.write_text("+0")
    stage.environment |= {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(told),
                          "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                          "DONT_FAKE_MONOTONIC": "1"}  # fmt: skip
    yield
    for jump in ("+365d", "-365d"):
        told.write_text(jump)
        time.sleep(stage.seconds / 6)
    yield


def shadow_hangs(stage: Stage) -> Iterator[None]:
    """The shadow's process stops and never answers."""
    shutil.copytree(stage.subject.bundle, stage.folder / "shadow")
    stage.options += ["--shadow", str(stage.folder / "shadow"), "--shadow-sample", "1",
                      "--shadow-busy", "1", "--isolate", "1"]  # fmt: skip
    yield
    children = _workers(stage)
    assert len(children) == 2, f"the model's process and the shadow's, got {len(children)}"
    os.kill(children[-1], signal.SIGSTOP)
    time.sleep(1)  # what it had begun ends here
    before = _shadow(stage)["done"]
    time.sleep(2)
    assert _shadow(stage)["done"] == before, "the shadow goes on"
    time.sleep(stage.seconds / 3)  # after half a deadline its process is killed, and replaced
    yield


def _shadow(stage: Stage) -> dict:
    with urllib.request.urlopen(stage.server.url + "/v2/rollout", timeout=10) as answer:
        return json.load(answer)["shadow"]


def slow_loris(stage: Stage) -> Iterator[None]:
    """200 connections send a byte a second of headers that never end, opened anew when closed."""
    yield
    end = time.monotonic() + stage.seconds / 2
    held: list[socket.socket] = []
    while time.monotonic() < end:
        held = [each for each in held if _trickled(each)]
        while len(held) < CONNECTIONS:
            each = socket.create_connection(("127.0.0.1", stage.server.port))
            each.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nX: ")
            held.append(each)
        time.sleep(1)
    for each in held:
        each.close()
    yield


def _trickled(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"a")
    except OSError:
        connection.close()
        return False
    return True


FAULTS: dict[str, Fault] = {
    "none": none,
    "worker-killed": worker_killed,
    "reload": reloaded,
    "folder-swapped": folder_swapped,
    "disk-full": disk_full,
    "clock-jump": clock_jump,
    "shadow-hangs": shadow_hangs,
    "slow-loris": slow_loris,
}


class NotHere(Exception):
    """What a fault needs isn't here."""


def main() -> None:
    """Let each fault happen, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--seconds", type=float, default=60, help="of each")
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    options = parser.parse_args()
    unknown = sorted(set(options.faults) - set(FAULTS))
    if unknown:
        parser.error(f"unknown faults {unknown}; known: {', '.join(FAULTS)}")
    each = subject("small", MODELS)
    rows = []
    for name in options.faults or FAULTS:
        print(f"{name} …", file=sys.stderr)
        rows.append([name, _title(name), *outcome(name, each, options.seconds, options.rate)])
        print(" | ".join(rows[-1]), file=sys.stderr)
    head = ("fault", "what happens", "sent", "lost", "slowest, s", "answers without a row",
            "rows twice", "the log's own count", "accounted", "bundles")  # fmt: skip
    title = f"Faults under {options.rate:g} requests a second, {options.seconds:g} s each"
    record("serving-faults", title, table(head, rows))


def _title(name: str) -> str:
    return (FAULTS[name].__doc__ or "").strip().splitlines()[0].rstrip(".")


def outcome(name: str, each: Subject, seconds: float, rate: float) -> Sequence[str]:
    """Return the cells of one fault's row."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), each, seconds)
        shutil.copytree(each.bundle, stage.bundle)
        try:
            return happened(FAULTS[name](stage), stage, rate)
        except NotHere as error:
            return [f"not run: {error}", *[""] * 7]


def happened(fault: Iterator[None], stage: Stage, rate: float) -> Sequence[str]:
    """Run the server, the load and the fault; return what became of the requests.

    Raises:
        NotHere: the fault needs what isn't here.
    """
    next(fault)
    stage.log.parent.mkdir(exist_ok=True)
    port = free_port()
    command = [PROGRAM, "serve", f"m={stage.bundle}", "--port", str(port), "--allow-unproven",
               "--log", str(stage.log), *stage.options]  # fmt: skip
    said = stage.folder / "said.log"
    with running(command, port, said, stage.environment, stage.folder) as process:
        stage.process = process
        try:
            process.wait("/v2/health/ready")
        except RuntimeError as error:
            if "unrecognized arguments" in str(error):
                offered = " ".join(o for o in stage.options if o.startswith("--"))
                raise NotHere(f"`fettle serve` doesn't know {offered}") from error
            raise
        with steady(process.url, stage.subject, rate) as stream:
            end = time.monotonic() + stage.seconds
            time.sleep(stage.seconds / 6)
            next(fault)
            time.sleep(max(end - time.monotonic(), 0))
        for pid in process.family():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)
    next(fault, None)
    held = logged(stage.log, stream)
    lost = ", ".join(f"{count} × {kind}" for kind, count in stream.lost.most_common(3)) or "0"
    return [str(len(stream.sent)), lost.replace("|", "/").replace("\n", " "),
            f"{stream.slowest:.2f}", str(held.missing), str(held.twice), str(held.losses or 0),
            "yes" if held.accounted else "no", str(held.bundles)]  # fmt: skip


def swap(stage: Stage) -> None:
    """Put a bundle of another hash where the served one lies, at once; the model is the same."""
    fresh, source = stage.folder / ".fresh", stage.folder / "source"
    shutil.copytree(stage.subject.bundle, source)
    (source / MANIFEST).unlink()
    manifest = Bundle.open(stage.bundle).manifest
    count = int(manifest.lineage.get("swaps", 0)) + 1
    write_bundle(fresh, replace(manifest, lineage={"swaps": count}), source)
    shutil.rmtree(source)
    _exchange(fresh, stage.bundle)
    shutil.rmtree(fresh)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change names in one step: renameat2 with RENAME_EXCHANGE."""
    here, exchange = -100, 2  # AT_FDCWD
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange):
        raise OSError(ctypes.get_errno(), "renameat2")


if __name__ == "__main__":
    main()
