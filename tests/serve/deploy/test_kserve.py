"""KServe's manifests, held against the schema of its CRD (see `generate_schema.py`)."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest

from fettle.core.bundle import Bundle
from fettle.core.errors import InputError, KnobError
from fettle.core.shelf import DEPLOYMENTS
from fettle.serve.deploy import deploy

SCHEMA = json.loads((Path(__file__).parent / "inference_service.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i)?")  # Kubernetes' resource.Quantity


def written(bundle, out, name="digits", **knobs):
    done = deploy(DEPLOYMENTS.make("kserve", **knobs), bundle, name, out)
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
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("digits", "prod")
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


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"canary": 10, "namespace": "prod"},
        {"canary": 0},
        {"mode": "Standard", "replicas": 3, "cpus": 8, "memory_mb": 4096},
        {"image": "registry.example:5000/team/digits:1.2"},
    ],
)
def test_the_manifest_is_what_the_crd_describes(proven, tmp_path, knobs):
    _, service = written(proven, tmp_path / "kserve", **knobs)
    VALIDATOR.validate(service)
    (container,) = service["spec"]["predictor"]["containers"]
    for amounts in container["resources"].values():
        assert all(QUANTITY.fullmatch(amount) for amount in amounts.values())


def test_the_schema_itself_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "Service"),
        (("spec", "predictor", "minReplicas"), "1"),
        (("spec", "predictor", "canaryTraficPercent"), 10),
        (("spec", "predictor", "canaryTrafficPercent"), "10%"),
        (("spec", "predictor", "containers", 0, "readinessProbe", "httpGet", "port"), None),
        (("spec", "predictor", "containers", 0, "livenessProbe", "http"), {}),
        (("spec", "predictor", "containers", 0, "securityContext", "readOnlyRoot"), True),
        (("spec", "predictor", "containers", 0, "resources", "limits"), [2]),
        (("spec", "predictor", "volumes", 0, "emptyDirectory"), {}),
        (("metadata", "nam"), "x"),
    ],
)
def test_the_schema_would_say_what_is_wrong(proven, tmp_path, path, value):
    _, service = written(proven, tmp_path / "kserve")
    broken = copy.deepcopy(service)
    *outer, last = path
    place = broken
    for key in outer:
        place = place[key]
    place[last] = value
    assert not VALIDATOR.is_valid(broken)


def test_the_container_has_no_rights_and_no_disk_of_its_own(proven, tmp_path):
    _, service = written(proven, tmp_path / "kserve")
    predictor = service["spec"]["predictor"]
    assert predictor["containers"][0]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "securityContext" not in predictor  # Knative refuses a pod's, unless it is told not to


def test_the_probes_ask_the_port_that_the_image_listens_on(proven, tmp_path):
    _, service = written(proven, tmp_path / "kserve")
    (container,) = service["spec"]["predictor"]["containers"]
    (port,) = container["ports"]
    assert port["name"] in ("http1", "h2c")  # by which Knative knows the protocol
    for probe, what in (("readinessProbe", "ready"), ("livenessProbe", "live")):
        asked = container[probe]["httpGet"]
        assert asked == {"path": f"/v2/health/{what}", "port": port["containerPort"]}
    dockerfile = (tmp_path / "kserve" / "Dockerfile").read_text()
    assert f"EXPOSE {port['containerPort']}\n" in dockerfile


def test_shares_are_knatives(proven, tmp_path):
    _, service = written(proven, tmp_path / "knative")
    assert service["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Knative"}
    with pytest.raises(InputError, match="--mode Knative"):
        written(proven, tmp_path / "standard", mode="Standard", canary=10)


@pytest.mark.parametrize("name", ["7up", "x" * 54])
def test_names_that_kserve_would_not_take_are_refused(proven, tmp_path, name):
    with pytest.raises(InputError, match="--name"):
        written(proven, tmp_path / "kserve", name=name)
