"""Ray Serve itself, running what `fettle deploy ray` wrote: two replicas, of which one is killed.

It takes an environment with `ray[serve]`: this one, or that of the Python which `FETTLE_RAY` names
(`pip install 'ray[serve]'` there beside what `fettle[serve]` needs).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as triton

from fettle.core.shelf import DEPLOYMENTS
from fettle.serve.deploy import deploy

SOURCE = Path(__file__).parents[3] / "src"
HERE = sys.executable if find_spec("ray") and find_spec("starlette") else ""
PYTHON = os.environ.get("FETTLE_RAY", HERE)
PATIENCE_S = 180

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="`ray[serve]` is not here, and FETTLE_RAY names no Python that has it"
    ),
]


def environment(home):
    """Return the variables of a Ray that leaves nothing behind in anyone's home."""
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "HOME": str(home)}
    return {**os.environ, **threads, **quiet}


def until(found, what):
    """Return what `found` returns once it is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.2)
    pytest.fail(f"{what} did not come within {PATIENCE_S} s")


class Cluster:
    """`serve run` of a folder, on a free port of this machine."""

    def __init__(self, folder, home):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.log = folder, home / "ray.log"
        config = json.loads((folder / "serve.yaml").read_text())
        config["http_options"]["port"] = self.port
        (folder / "serve.yaml").write_text(json.dumps(config))
        command = [PYTHON, "-m", "ray.serve.scripts", "run"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--working-dir", folder, folder / "serve.yaml"],
                env=environment(home),
                cwd=home,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.client = triton.InferenceServerClient(f"127.0.0.1:{self.port}")

    def ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.is_server_ready() and len(self.replicas()) == 2
        except OSError:
            return False

    def replicas(self):
        """Return the processes of the replicas."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return {p.pid for p in family if _title(p).startswith("ray::ServeReplica")}

    def infer(self, rows, binary=True):
        tensor = triton.InferInput("input", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        wanted = [triton.InferRequestedOutput("logits", binary_data=binary)]
        return self.client.infer("digits", [tensor], outputs=wanted).as_numpy("logits")

    def stop(self):
        self.client.close()
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for orphan in psutil.wait_procs(family, timeout=20)[1]:
            orphan.kill()


def _title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


@pytest.fixture(scope="module")
def cluster(proven, tmp_path_factory):
    home = tmp_path_factory.mktemp("ray")
    deploy(DEPLOYMENTS.make("ray", replicas=2), proven, "digits", home / "app")
    found = Cluster(home / "app", home)
    try:
        until(found.ready, "a ready server")
        yield found
    finally:
        found.stop()


def test_its_predictions_are_the_bundles_own(cluster, proven):
    inputs, outputs = proven.golden()
    for binary in (True, False):
        found = cluster.infer(inputs["input"][:5], binary)
        np.testing.assert_allclose(found, outputs["logits"][:5], atol=1e-4)


def test_it_describes_its_model(cluster):
    metadata = cluster.client.get_model_metadata("digits")
    assert (metadata["name"], metadata["versions"]) == ("digits", ["1"])
    assert cluster.client.get_model_config("digits")["max_batch_size"] == 8


def test_what_is_wrong_is_refused_as_at_home(cluster, proven):
    rows = proven.golden()[0]["input"][:1]
    with pytest.raises(triton.InferenceServerException, match="input") as caught:
        cluster.infer(rows[:, :, :4])
    assert caught.value.status() == "400"
    with pytest.raises(triton.InferenceServerException, match="switched off") as caught:
        cluster.client.unload_model("digits")
    assert caught.value.status() == "403"
    with pytest.raises(triton.InferenceServerException, match="no model"):
        cluster.client.get_model_metadata("other")


def test_one_that_is_killed_is_replaced_and_its_sister_goes_on(cluster, proven):
    rows, expected = (arrays[name][:1] for arrays, name in zip(
        proven.golden(), ("input", "logits"), strict=True))  # fmt: skip
    before = cluster.replicas()
    os.kill(min(before), signal.SIGKILL)
    answered, failed = 0, []

    def replaced():
        nonlocal answered
        try:
            np.testing.assert_allclose(cluster.infer(rows), expected, atol=1e-4)
            answered += 1
        except triton.InferenceServerException as error:
            failed.append(str(error))
        return len(cluster.replicas() - {min(before)}) == 2

    until(replaced, "a new replica")
    assert len(failed) <= 1, failed  # the one that it held when it died
    assert answered > 0
    assert max(before) in cluster.replicas()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"name": "m"}, "expects bundle"),
        ({"name": "m", "bundle": "b", "settings": {"port": 1}}, "has no `port`"),
        ({"name": "m", "bundle": "b", "settings": {"queue": 0}}, "(queue=…)"),
        ({"name": "m", "bundle": "b", "token_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
    ],
)
def test_arguments_that_are_none_are_refused(tmp_path, args, said):
    code = (
        "import sys, json; from fettle.serve.deploy.on_ray import application, settings_of\n"
        "args = json.loads(sys.argv[1]); application(args); settings_of(args)"
    )
    done = subprocess.run(
        [PYTHON, "-c", code, json.dumps(args)],
        env=environment(tmp_path),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert said in done.stderr
