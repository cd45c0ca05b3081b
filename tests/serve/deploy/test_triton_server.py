"""The configuration as the real server reads it.

`FETTLE_TRITON` names a folder with `bin/tritonserver` and `backends/`; the wheel `nvidia-pytriton`
holds one (`pytriton/tritonserver`), which runs without Docker and without a GPU. Its only backend
is Python's, so that what is asked for here is never run: the configuration is parsed and checked,
and the one thing that the server then misses has to be the backend's library.
"""

import os
import subprocess
from pathlib import Path

import pytest

from fettle.core.shelf import DEPLOYMENTS
from fettle.serve.deploy import deploy

HOME = os.environ.get("FETTLE_TRITON", "")

pytestmark = pytest.mark.skipif(
    not HOME, reason="FETTLE_TRITON names no folder with bin/tritonserver (nvidia-pytriton has one)"
)


def said(repository):
    """Return what the server says of a repository that it can't serve."""
    ports = [f"--allow-{kind}=false" for kind in ("http", "grpc", "metrics")]
    where = [f"--model-repository={repository}", f"--backend-directory={HOME}/backends"]
    binary = Path(HOME) / "bin" / "tritonserver"
    done = subprocess.run(
        [binary, *where, *ports], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize(("kind", "threads"), [("cpu", 0), ("cpu", 2), ("gpu", 0)])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_server_misses_nothing_but_the_backend(make_bundle, tmp_path, runtime, kind, threads):
    bundle = make_bundle(tmp_path / "best", runtime=runtime, labels=tuple("abcdefghij"))
    way = DEPLOYMENTS.make("triton", kind=kind, threads=threads)
    deploy(way, bundle, "digits", tmp_path / "models")
    words = said(tmp_path / "models")
    backend = "openvino" if (runtime, kind) == ("openvino", "cpu") else "onnxruntime"
    missing = f"unable to find backend library for backend '{backend}'"
    no_gpu = "instance group digits of model digits has kind KIND_GPU but server does not support"
    assert missing in words or (kind == "gpu" and no_gpu in words), words
    assert "Error parsing text-format" not in words


def test_the_server_would_say_what_is_wrong(make_bundle, tmp_path):
    deploy(
        DEPLOYMENTS.make("triton"), make_bundle(tmp_path / "best"), "digits", tmp_path / "models"
    )
    config = tmp_path / "models" / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace("TYPE_FP32", "TYPE_FP33"))
    assert "Error parsing text-format" in said(tmp_path / "models")
