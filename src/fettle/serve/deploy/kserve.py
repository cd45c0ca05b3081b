"""Manifests for KServe on Kubernetes: an image of `fettle serve`, behind an InferenceService.

Writes the Dockerfile (non-root, read-only root file system), the bundle it copies, and
`service.yaml`: an `InferenceService` of the V2 protocol with probes on the server's own health
routes, resource limits, and, where another revision serves already, the share of the traffic that
this one gets. Promotion is raising that share; rollback is setting it to 0. Only Knative shares
traffic out between revisions, and a service can't change its mode later: it is asked for from the
first revision on. All of the security context is the container's own, as Knative refuses a pod's.

Source: KServe's InferenceService, v1beta1
(https://kserve.github.io/website/docs/reference/crd-api).
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fettle.core.bundle import Bundle
from fettle.core.errors import InputError
from fettle.core.files import write_text
from fettle.core.knobs import Choice, Range, Text
from fettle.serve.deploy._deployment import Deployment
from fettle.serve.deploy._image import dockerfile

_PORT = 8080
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?")  # KServe's, and -predictor comes after it
_MODE = "serving.kserve.io/deploymentMode"
_SCRATCH = "scratch"  # the root file system is read-only; engines keep what they compile


@dataclass(frozen=True, kw_only=True)
class KServe(Deployment):
    """An image of `fettle serve` and the manifest of an InferenceService."""

    image: Annotated[str, Text("REGISTRY/NAME:TAG"), "what the image will be called"] = ""
    namespace: Annotated[str, Text("NAME"), "of the service; empty: the current one"] = ""
    canary: Annotated[int, Range(0, 100, "%"), "of the traffic to this revision; 100: all"] = 100
    mode: Annotated[
        str,
        Choice("Knative", "Standard"),
        "of deployment; Standard does without Knative, and canaries",
    ] = "Knative"
    replicas: Annotated[int, Range(1, 1000), "pods that are always there"] = 1
    most_replicas: Annotated[int, Range(1, 1000), "pods under load"] = 4
    cpus: Annotated[int, Range(1, 256), "processors of a pod"] = 2
    memory_mb: Annotated[int, Range(128, 1_000_000, "MiB"), "memory of a pod"] = 1024

    def fill(self, bundle: Bundle, name: str, folder: Path) -> tuple[str, ...]:
        """Write the Dockerfile, the bundle and the manifest.

        Raises:
            InputError: a name that KServe wouldn't take, or a canary where none can be.
        """
        self._refuse(name)
        image = self.image or f"{name}:latest"
        shutil.copytree(bundle.path, folder / "bundle")
        write_text(folder / "Dockerfile", dockerfile(bundle, name, _PORT))
        write_text(folder / "service.yaml", _yaml(self.manifest(name, image)))
        return (
            f"docker build -t {image} {{folder}} && docker push {image}",
            "kubectl apply -f {folder}/service.yaml",
        )

    def manifest(self, name: str, image: str) -> dict[str, Any]:
        """Return the InferenceService as data."""
        predictor: dict[str, Any] = {
            "minReplicas": self.replicas,
            "maxReplicas": max(self.replicas, self.most_replicas),
            "containers": [self._container(image)],
            "volumes": [{"name": _SCRATCH, "emptyDir": {}}],
        }
        if self.canary < 100:
            predictor["canaryTrafficPercent"] = self.canary
        named: dict[str, Any] = {"name": name, "annotations": {_MODE: self.mode}}
        if self.namespace:
            named["namespace"] = self.namespace
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": named,
            "spec": {"predictor": predictor},
        }

    def _refuse(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InputError(
                "an InferenceService's name expects a letter first and at most 53 small letters,"
                f" digits and dashes, got `{name}`: give another with `--name`"
            )
        if self.canary < 100 and self.mode != "Knative":
            raise InputError(
                f"`--canary {self.canary}` expects `--mode Knative`: in the mode {self.mode} KServe"
                " gives a new revision all of the traffic"
            )

    def _container(self, image: str) -> dict[str, Any]:
        resources = {"cpu": str(self.cpus), "memory": f"{self.memory_mb}Mi"}
        return {
            "name": "kserve-container",
            "image": image,
            "ports": [{"name": "http1", "containerPort": _PORT, "protocol": "TCP"}],
            "resources": {"requests": resources, "limits": resources},
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": _SCRATCH, "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
            "readinessProbe": _probe("ready"),
            "livenessProbe": _probe("live"),
        }


def _probe(what: str) -> dict[str, Any]:
    return {"httpGet": {"path": f"/v2/health/{what}", "port": _PORT}, "periodSeconds": 5}


def _yaml(data: dict[str, Any]) -> str:
    """Return the data as YAML: every JSON text is one, and kubectl takes it."""
    return json.dumps(data, indent=2) + "\n"
