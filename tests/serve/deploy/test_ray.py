"""The folder that Ray Serve runs: its configuration, held against what Ray's own schema expects."""

import json

import pytest

from fettle.core.bundle import Bundle
from fettle.core.errors import KnobError
from fettle.core.shelf import DEPLOYMENTS
from fettle.serve.deploy import deploy


def written(bundle, out, **knobs):
    done = deploy(DEPLOYMENTS.make("ray", **knobs), bundle, "digits", out)
    return done, json.loads((out / "serve.yaml").read_text())


def test_the_folder_is_whole(proven, tmp_path):
    done, _ = written(proven, tmp_path / "ray")
    assert {"serve.yaml", "requirements.txt", "bundle/manifest.json"} <= set(done.files)
    assert Bundle.open(tmp_path / "ray" / "bundle").manifest == proven.manifest
    folder = str(tmp_path / "ray")
    assert done.commands[-1] == f"serve run --working-dir {folder} {folder}/serve.yaml"


def test_it_is_installed_with_what_the_bundle_was_proven_with(make_bundle, tmp_path):
    versions = {"fettle": "0.1.0", "onnxruntime": "1.27.0"}
    written(make_bundle(tmp_path / "best", versions=versions), tmp_path / "ray")
    lines = (tmp_path / "ray" / "requirements.txt").read_text().split()
    assert lines == ["fettle[ray-serve]==0.1.0", "onnxruntime==1.27.0"]


def test_the_knobs_are_rays_options(proven, tmp_path):
    knobs = {"replicas": 3, "cpus": 2, "memory_mb": 512, "ongoing": 8, "deadline_seconds": 7.0}
    _, config = written(proven, tmp_path / "ray", port=9000, **knobs)
    (application,) = config["applications"]
    (deployment,) = application["deployments"]
    assert deployment["num_replicas"] == 3
    assert deployment["max_ongoing_requests"] == 8
    assert deployment["ray_actor_options"] == {"num_cpus": 2, "memory": 512 << 20}
    assert application["args"]["settings"] == {"threads": 2, "deadline_seconds": 7.0}
    assert config["http_options"]["port"] == 9000
    assert config["http_options"]["request_timeout_s"] > 7.0


def test_it_listens_on_this_machine_alone_unless_told(proven, tmp_path):
    _, config = written(proven, tmp_path / "ray")
    assert config["http_options"]["host"] == "127.0.0.1"


def test_replicas_grow_with_the_load_where_more_are_allowed(proven, tmp_path):
    _, config = written(proven, tmp_path / "ray", replicas=2, most_replicas=6)
    (deployment,) = config["applications"][0]["deployments"]
    assert deployment["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 6}
    assert "num_replicas" not in deployment


def test_knobs_have_bounds():
    with pytest.raises(KnobError, match="replicas"):
        DEPLOYMENTS.make("ray", replicas=0)
