"""A Ray Serve application: replicas on one machine or many, with the handlers of `fettle serve`.

Writes the bundle, `serve.yaml` (where it listens, how many replicas, what each may take) and
`requirements.txt` with the versions that the bundle was proven with. Each replica loads the bundle,
replays its golden outputs on the processor that it came to and warms up before Ray sends it a
request, and batches by itself. One that dies is replaced, and the others go on.

Limits of connections (slow headers, slow bodies) are those of Ray's proxy. The prediction log and
rollouts are `fettle serve`'s: replicas share no file. To update, give `serve deploy` a new folder:
Ray starts the new replicas before it stops the old.

Source: Ray Serve's config file
(https://docs.ray.io/en/latest/serve/production-guide/config.html).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fettle.core.bundle import Bundle
from fettle.core.files import write_text
from fettle.core.knobs import Range, Text
from fettle.serve.deploy._deployment import Deployment
from fettle.serve.deploy._image import pins

DEPLOYMENT = "fettle"
"""What the deployment is called, by which `serve.yaml` sizes it."""

_SPARE_S = 5  # after its own deadline a replica still says that it was late


@dataclass(frozen=True, kw_only=True)
class RayServe(Deployment):
    """A Ray Serve application: replicas on one machine or many."""

    replicas: Annotated[int, Range(1, 1000), "that are always there"] = 2
    most_replicas: Annotated[
        int, Range(0, 1000), "under load; 0: no more than are always there"
    ] = 0
    cpus: Annotated[int, Range(1, 256), "processors of a replica, and threads of its engine"] = 1
    memory_mb: Annotated[int, Range(128, 1_000_000, "MiB"), "memory kept for a replica"] = 1024
    ongoing: Annotated[int, Range(1, 100_000), "requests that a replica is given at once"] = 64
    deadline_seconds: Annotated[float, Range(0.001, 86400), "how long a request may take"] = 30.0
    host: Annotated[str, Text("ADDRESS"), "address that Ray's proxy listens on"] = "127.0.0.1"
    port: Annotated[int, Range(1, 65535), "port of it"] = 8000

    def fill(self, bundle: Bundle, name: str, folder: Path) -> tuple[str, ...]:
        """Write the bundle, the configuration and the requirements."""
        shutil.copytree(bundle.path, folder / "bundle")
        write_text(folder / "serve.yaml", json.dumps(self.config(name), indent=2) + "\n")
        write_text(folder / "requirements.txt", "\n".join(pins(bundle, "ray-serve")) + "\n")
        return (
            "pip install -r {folder}/requirements.txt",
            "serve run --working-dir {folder} {folder}/serve.yaml",
        )

    def config(self, name: str) -> dict[str, Any]:
        """Return Ray Serve's configuration as data; every JSON text is YAML."""
        application = {
            "name": name,
            "route_prefix": "/",
            "import_path": "fettle.serve.deploy.on_ray:application",
            "args": {
                "bundle": "bundle",
                "name": name,
                "settings": {"threads": self.cpus, "deadline_seconds": self.deadline_seconds},
            },
            "deployments": [{"name": DEPLOYMENT, **self._size()}],
        }
        return {
            "proxy_location": "EveryNode",
            "http_options": {
                "host": self.host,
                "port": self.port,
                "request_timeout_s": self.deadline_seconds + _SPARE_S,
            },
            "applications": [application],
        }

    def _size(self) -> dict[str, Any]:
        size: dict[str, Any] = {"num_replicas": self.replicas}
        if self.most_replicas > self.replicas:
            bounds = {"min_replicas": self.replicas, "max_replicas": self.most_replicas}
            size = {"autoscaling_config": bounds}
        return {
            **size,
            "max_ongoing_requests": self.ongoing,
            "graceful_shutdown_timeout_s": self.deadline_seconds + _SPARE_S,
            "ray_actor_options": {
                "num_cpus": self.cpus,
                "memory": self.memory_mb << 20,
            },
        }
