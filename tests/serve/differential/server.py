"""A real Triton, from the wheel `nvidia-pytriton`: it runs without Docker and without a GPU.

`FETTLE_TRITON` names its folder `pytriton/tritonserver`. Its only backend is Python's, and so a few
lines of Python run the ONNX files with onnxruntime; requests are read, checked, batched and
answered by the server itself.
"""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

HOME = os.environ.get("FETTLE_TRITON", "")
STUB = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
RUNS_ONNX = """
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feeds = {
            each.name: np.from_dlpack(pb.get_input_tensor_by_name(request, each.name))
            for each in self.session.get_inputs()
        }
        names = [each.name for each in self.session.get_outputs()]
        found = zip(names, self.session.run(names, feeds), strict=True)
        return pb.InferenceResponse([pb.Tensor.from_dlpack(name, value) for name, value in found])
"""
"""Tensors come and go over DLPack: the stub was built for a numpy whose arrays lie otherwise."""


def why_not():
    """Return why no Triton can be started here; '' where one can."""
    if not HOME:
        return "FETTLE_TRITON names no folder with bin/tritonserver (nvidia-pytriton has one)"
    if not (Path(HOME) / STUB).is_dir():
        return (
            f"this Triton has no stub for Python {sys.version_info.major}.{sys.version_info.minor}"
        )
    return ""


@dataclass(frozen=True)
class Ports:
    """Where a server is reached on this machine."""

    http: int
    grpc: int


def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def backends(folder):
    """Put Triton's Python backend together with the stub of this Python, in `folder`."""
    home = Path(HOME)
    place = folder / "python"
    place.mkdir(parents=True)
    parts = [*(home / "backends" / "python").iterdir(), *(home / STUB).iterdir()]
    for part in parts:
        (place / part.name).symlink_to(part)
    return folder


@contextlib.contextmanager
def running(repository, folder):
    """Run Triton on a repository of models, and yield its ports."""
    rest, grpc = free_ports(2)
    libraries = (sysconfig.get_config_var("LIBDIR"), Path(HOME).parents[1] / "nvidia_pytriton.libs")
    python = {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": sysconfig.get_path("purelib")}
    command = [
        Path(HOME) / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={backends(folder / 'backends')}",
        *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc")),
        f"--http-port={rest}",
        f"--grpc-port={grpc}",
        "--allow-metrics=false",
        "--model-control-mode=explicit",
        "--load-model=*",
    ]
    log = folder / "triton.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, **python, "LD_LIBRARY_PATH": ":".join(map(str, libraries))},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        until_ready(process, rest, log)
        yield Ports(rest, grpc)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def until_ready(process, port, log, patience_s=120):
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        if is_ready(port):
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def is_ready(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
