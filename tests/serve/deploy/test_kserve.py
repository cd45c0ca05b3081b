"""KServe's manifests and the image of the server."""

import json

import pytest

from fettle.core.bundle import Bundle
from fettle.core.errors import KnobError
from fettle.core.shelf import DEPLOYMENTS
from fettle.serve.deploy import deploy


def written(bundle, out, **knobs):
    done = deploy(DEPLOYMENTS.make("kserve", **knobs), bundle, "digits", out)
    return done, json.loads((out / "service.yaml").read_text())


def test_the_folder_is_a_whole_build_context(proven, tmp_path):
    done, _ = written(proven, tmp_path / "kserve", image="registry.example/digits:1")
    assert {"Dockerfile", "service.yaml", "bundle/manifest.json"} <= set(done.files)
    assert Bundle.open(tmp_path / "kserve" / "bundle").manifest == proven.manifest
    assert "docker build -t registry.example/digits:1" in done.commands[0]


def test_the_service_is_an_inference_service(proven, tmp_path):
    _, service = written(proven, tmp_path / "kserve", namespace="prod", cpus=4)
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService"
    assert service["metadata"] == {"name": "digits", "namespace": "prod"}
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["resources"]["limits"]["cpu"] == "4"
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (mount,) = container["volumeMounts"]
    (volume,) = service["spec"]["predictor"]["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/tmp")


def test_a_canary_gets_its_share(proven, tmp_path):
    _, all_of_it = written(proven, tmp_path / "all")
    _, some = written(proven, tmp_path / "some", canary=10)
    assert "canaryTrafficPercent" not in all_of_it["spec"]["predictor"]
    assert some["spec"]["predictor"]["canaryTrafficPercent"] == 10


def test_never_more_least_than_most_replicas(proven, tmp_path):
    _, service = written(proven, tmp_path / "kserve", replicas=8)
    assert service["spec"]["predictor"]["maxReplicas"] == 8


def test_shares_have_bounds():
    with pytest.raises(KnobError, match="canary"):
        DEPLOYMENTS.make("kserve", canary=101)
