"""The servers: how each is started, as its documentation says, and how it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import _serving_bodies as bodies
import numpy as np
from _serving_environments import PINS, environment
from _serving_models import Subject
from _serving_processes import Process, free_port, running

Command = Callable[[Subject, Path, int, Path], list[str]]
READY = "/v2/health/ready"


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        name: what the table calls it.
        setting: how it is run, in words.
        command: what starts it, of the model, its environment's programs, a port and a folder.
        ask: what makes a request of the input's name, an array and whether it is binary.
        ready: the path that answers 200 once it serves.
        binary: whether it takes and gives tensors as bytes over HTTP.
    """

    name: str
    setting: str
    command: Command
    ask: Callable[[str, np.ndarray, bool], bodies.Ask] = bodies.protocol
    ready: str = READY
    binary: bool = False

    @contextlib.contextmanager
    def serving(self, subject: Subject, environments: Path, folder: Path) -> Iterator[Process]:
        """Run it with one model, whose answers are checked before any load."""
        programs = Path() if self.name == "fettle" else environment(self.name, environments)
        port = free_port()
        command = self.command(subject, programs, port, folder)
        told = {"SERVED_MODEL": str(subject.onnx), "SERVED_PORT": str(port)}
        if self.name == "pytriton":  # its own Python is a copy that looks for its library here
            told["LD_LIBRARY_PATH"] = _library()
        told["PATH"] = f"{programs}:/usr/bin:/bin" if programs != Path() else os.environ["PATH"]
        told |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder / "home")}
        with running(command, port, folder / f"{self.name}.log", told, folder) as process:
            process.wait(self.ready)
            self.check(process, subject)
            yield process
            self.check(process, subject)

    def check(self, process: Process, subject: Subject) -> None:
        """Hold an answer of each form against the model.

        Raises:
            AssertionError: it differs, or isn't 200.
        """
        for binary in (False, True)[: 1 + self.binary]:
            found = bodies.answer(process.url, self.ask(subject.input, subject.x, binary))
            np.testing.assert_allclose(found, subject.y, rtol=0.02, atol=0.02)


def _fettle(subject: Subject, programs: Path, port: int, folder: Path) -> list[str]:
    del programs
    program = str(Path(sys.executable).with_name("fettle"))
    return [program, "serve", f"m={subject.bundle}", "--port", str(port), "--allow-unproven",
            "--log", str(folder / "predictions.db"), "--capsules",
            str(folder / "capsules")]  # fmt: skip


def _script(name: str) -> Command:
    def command(subject: Subject, programs: Path, port: int, folder: Path) -> list[str]:
        del subject, port, folder
        return [str(programs / "python"), str(PINS / f"{name}_app.py")]

    return command


def _bentoml(subject: Subject, programs: Path, port: int, folder: Path) -> list[str]:
    del subject, folder
    return [str(programs / "bentoml"), "serve", "bentoml_app:Served", "--working-dir", str(PINS),
            "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip


def _mlserver(subject: Subject, programs: Path, port: int, folder: Path) -> list[str]:
    del subject
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1,
                "metrics_port": port + 2, "parallel_workers": 0}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "m", "implementation": "mlserver_app.Served"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "mlserver_app.py").write_text((PINS / "mlserver_app.py").read_text())
    return [str(programs / "mlserver"), "start", str(folder)]


def _library() -> str:
    return str(sysconfig.get_config_var("LIBDIR"))


SERVERS = {
    server.name: server
    for server in (
        Server("fettle", "log, access log, capsules and metrics on", _fettle, binary=True),
        Server("litserve", "one worker", _script("litserve"), bodies.litserve, "/health"),
        Server("bentoml", "one worker", _bentoml, bodies.bentoml, "/readyz"),
        Server("mlserver", "`parallel_workers: 0`: no process between", _mlserver),
        Server("kserve", "one worker", _script("kserve"), binary=True),
        Server(
            "pytriton",
            "`@batch`, `max_batch_size=64`",
            _script("pytriton"),
            ready="/v2/models/m/ready",
            binary=True,
        ),
    )
}
