"""Shelves: the folder is the registry.

A plug-in is one module that defines one subclass of its shelf's seam. Names are read from the
files' text, so listing a shelf imports nothing; loading one plug-in imports that module alone.
Third parties add theirs through entry points of the group that the shelf names.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fettle.core.errors import KnobError, MissingError, UnknownName
from fettle.core.plugin import Plugin

INSTALL = {
    "torch": "pip install 'fettle[torch]'",
    "torchao": "pip install 'fettle[torch]'",
    "torch_pruning": "pip install 'fettle[torch]'",
    "lightning_fabric": "pip install 'fettle[torch]'",
    "onnxscript": "pip install 'fettle[torch]'",
    "safetensors": "pip install 'fettle[torch]'",
    "torchvision": "pip install 'fettle[vision]'",
    "timm": "pip install 'fettle[vision]'",
    "transformers": "pip install 'fettle[text]'",
    "tokenizers": "pip install 'fettle[text]'",
    "PIL": "pip install 'fettle[vision]'",
    "openvino": "pip install 'fettle[openvino]'",
    "optuna": "pip install 'fettle[search]'",
    "ray": "pip install 'fettle[ray]'",
    "tensorrt": "pip install 'fettle[tensorrt]'",
    **dict.fromkeys(
        ("uvicorn", "httptools", "uvloop", "orjson"),
        "pip install 'fettle[serve]'",
    ),
    "grpc": "pip install 'fettle[grpc]'",
    "opentelemetry": "pip install 'fettle[tracing]'",
}


@dataclass(frozen=True)
class Shelf:
    """Plug-ins of one kind, found by looking into one package's folder."""

    kind: str
    package: str
    seam: str
    group: str
    prefix: str = ""

    def names(self) -> list[str]:
        """Return the names of all plug-ins on this shelf, sorted."""
        return sorted({*_modules(self.package, self.seam, self.prefix), *self._entry_points()})

    def load(self, name: str) -> type[Plugin]:
        """Return the plug-in class called `name`.

        Raises:
            UnknownName: nothing on the shelf is called so.
            MissingError: a package that the plug-in needs is not installed.
        """
        module_name = _modules(self.package, self.seam, self.prefix).get(name)
        if module_name:
            cls = _plugin_in(_import(module_name, f"{self.kind} `{name}`"), self.seam)
        elif name in self._entry_points():
            cls = self._entry_points()[name].load()
        else:
            raise UnknownName(self.kind, name, self.names())
        cls.plugin_name = name
        return cls

    def make(self, name: str, **values: Any) -> Plugin:
        """Return the plug-in called `name` with these knobs.

        Raises:
            KnobError: a knob that it doesn't have, or out of bounds.
        """
        cls = self.load(name)
        known = [knob.name for knob in cls.knobs()]
        for given in values:
            if given not in known:
                raise KnobError(f"`{name}` has no knob `{given}`; its knobs: {', '.join(known)}")
        return cls(**values)

    def _entry_points(self) -> dict[str, Any]:
        return {point.name: point for point in entry_points(group=self.group)}


@cache
def _modules(package: str, seam: str, prefix: str) -> dict[str, str]:
    """Map plug-in names to module names by reading the package's files."""
    spec = importlib.util.find_spec(package)
    roots = spec.submodule_search_locations if spec else None
    if not roots:
        return {}
    pattern = re.compile(rf"^class \w+\((?:\w+, )*(?:\w+\.)?{seam}\)", re.MULTILINE)
    found = {}
    for path in sorted(Path(roots[0]).rglob("*.py")):
        parts = path.relative_to(roots[0]).with_suffix("").parts
        if any(part.startswith("_") for part in parts):
            continue
        if pattern.search(path.read_text(encoding="utf-8")):
            found[prefix + ".".join(parts)] = ".".join((package, *parts))
    return found


def _import(module_name: str, what: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "fettle"):
            raise
        mend = INSTALL.get(missing, f"pip install {missing}")
        raise MissingError(f"{what} needs the package `{missing}`", mend) from error


def _plugin_in(module: Any, seam: str) -> type[Plugin]:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        bases = {base.__name__ for base in cls.__bases__}
        if cls.__module__ == module.__name__ and seam in bases and issubclass(cls, Plugin):
            return cls
    raise TypeError(f"{module.__name__} defines no subclass of {seam}")  # our own mistake


TECHNIQUES = Shelf("technique", "fettle.compress", "Technique", "fettle.techniques")
PASSES = Shelf("graph pass", "fettle.graph", "GraphPass", "fettle.passes", prefix="graph.")
RUNTIMES = Shelf("runtime", "fettle.runtimes", "Runtime", "fettle.runtimes")
METRICS = Shelf("metric", "fettle.measure", "Metric", "fettle.metrics")
SOURCES = Shelf("data source", "fettle.tasks.sources", "DataSource", "fettle.sources")
DETECTORS = Shelf("drift detector", "fettle.monitor", "Detector", "fettle.detectors")
DEPLOYMENTS = Shelf("deployment", "fettle.serve.deploy", "Deployment", "fettle.deployments")
SHELVES = (TECHNIQUES, PASSES, RUNTIMES, METRICS, SOURCES, DETECTORS, DEPLOYMENTS)
