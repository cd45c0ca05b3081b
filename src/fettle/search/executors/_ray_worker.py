"""What runs in Ray's worker processes: a job in, its outcome out, both as JSON and bytes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import ray

from fettle.core.machine import this_machine, versions
from fettle.search._result import machine_json
from fettle.search.executors._job import Parcel
from fettle.search.executors._transport import error_json
from fettle.search.workshop import libraries

Place = dict[str, str]  # the study, the node, and the folder where the study was begun
Sent = tuple[str, bool, list[Any]]  # a need's name, whether it is whole, and where Ray has it


def work(order: str, files: Parcel, needs: list[Sent], place: Place) -> tuple[str, Parcel]:
    """Do one job; what it raises comes back as data."""
    from fettle.search.executors._node import Delivery, perform

    # in a list Ray leaves a reference as it is: fetched here only if it isn't there yet
    deliveries = [Delivery(name, whole, partial(_fetched, ref)) for name, whole, [ref] in needs]
    try:
        _go_to(place["cwd"])
        root = _folder(place["study"]) / place["node"]
        done = perform(json.loads(order), root, deliveries, files)
    except Exception as error:  # whatever it is, the driver raises it
        return json.dumps({"error": error_json(error)}), {}
    return json.dumps({"value": done.value, "said": done.said}), done.files


def describe() -> str:
    """Return what this node is: machine and versions, as a study keeps them."""
    return json.dumps(
        {
            "machine": this_machine().to_json(),
            "versions": versions(),
            "report": machine_json(),
            "libraries": libraries(),
        }
    )


def sweep(study: str) -> None:
    """Remove everything that a study left on this node."""
    shutil.rmtree(_folder(study), ignore_errors=True)


def _go_to(folder: str) -> None:
    """Work where the study was begun, if that folder is here too: for names of data and code."""
    if Path(folder).is_dir():
        os.chdir(folder)
        sys.path[:] = [folder, *(path for path in sys.path if path != folder)]


def _fetched(ref: Any) -> Parcel:
    """Return what a reference stands for."""
    parcel: Parcel = ray.get(ref)
    return parcel


def _folder(study: str) -> Path:
    """Return this node's folder for a study, which nobody else may read."""
    own = Path(tempfile.gettempdir()) / f"fettle-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.is_symlink() or own.stat().st_uid != os.getuid():
        raise PermissionError(f"{own} belongs to somebody else: remove it on this node")
    return own / study
