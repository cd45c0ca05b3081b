"""Capsules: all that is needed to see again why a prediction failed, in one file each.

A capsule is an `.npz` that holds the inputs, and `capsule.json` with the error, which bundle
answered, and the processor and versions it ran on: `unzip -p CAPSULE capsule.json` shows it, and
`fettle replay CAPSULE --model BUNDLE` runs it again. Nothing in it is a pickle, and its name holds
nothing that came from the network.

One broken input a thousand times over tells no more than ten times: failures that read alike are
kept a few times only, and the oldest capsules go when there are too many.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import re
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.core.arrays import Arrays
from fettle.core.errors import DataError, FettleError
from fettle.core.files import replacing
from fettle.core.machine import this_machine, versions
from fettle.monitor._packing import pack, unpack
from fettle.monitor._redaction import Withheld, redactor
from fettle.monitor.answered import Answered
from fettle.monitor.prediction import Prediction

SCHEMA = 1
_CONTENTS = "capsule.json"
_MOST_OF_A_KIND = 10
_MOST_KINDS = 1000
_PREFIX = "capsule-"
# the caller's own mistakes, and those of load: no input is to blame
_NO_FAILURES = frozenset(
    {"BadRequest", "Unauthorized", "Forbidden", "NotFound", "WrongMethod", "TooSlow", "Conflict",
     "TooLarge", "Unsupported", "HeadersTooLarge", "Busy", "NotReady", "CancelledError"}
)  # fmt: skip


@dataclass(frozen=True)
class Capsule:
    """One failed prediction, with its inputs, and what it failed on.

    Attributes:
        prediction: its row of the log, inputs included.
        machine: the processor, as `Machine.to_json` tells it.
        versions: of the packages that matter.
    """

    prediction: Prediction
    machine: dict[str, Any]
    versions: dict[str, str]

    @property
    def inputs(self) -> Arrays:
        """The inputs by name, batch first."""
        return self.prediction.inputs or {}

    def to_json(self) -> dict[str, Any]:
        """Return all but the inputs."""
        row = dataclasses.asdict(dataclasses.replace(self.prediction, inputs=None, outputs=None))
        del row["inputs"], row["outputs"]
        if row["confidence"] is not None and not math.isfinite(row["confidence"]):
            row["confidence"] = None
        return {
            "schema": SCHEMA,
            "prediction": row,
            "machine": self.machine,
            "versions": self.versions,
        }

    def save(self, path: Path) -> None:
        """Write it to `path`, whole or not at all.

        Raises:
            StorageError: the disk is full, or the folder can't be written.
            ValueError, TypeError: inputs that are neither numbers nor text.
        """
        stream = io.BytesIO(pack({"input": self.inputs}))
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr(_CONTENTS, json.dumps(self.to_json(), indent=2))
        with replacing(path) as temporary:
            temporary.write_bytes(stream.getvalue())

    @classmethod
    def open(cls, path: Path) -> Capsule:
        """Read the capsule in file `path`.

        Raises:
            DataError: there is none, it is damaged, or a newer fettle wrote it.
        """
        if not path.is_file():
            raise DataError(f"a capsule was expected at {path}, but there is no such file")
        try:
            with zipfile.ZipFile(path) as archive:
                contents = json.loads(archive.read(_CONTENTS))
            if contents["schema"] != SCHEMA:
                raise DataError(
                    f"{path} has schema {contents['schema']}, this fettle reads {SCHEMA}: upgrade"
                )
            inputs = unpack(path.read_bytes()).get("input", {})
            row = Prediction(**contents["prediction"], inputs=inputs)
            return cls(row, dict(contents["machine"]), dict(contents["versions"]))
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no capsule, or was damaged ({error})") from error


class Capsules:
    """Keeps failed predictions in a folder; an observer of a service.

    Args:
        folder: is made where there is none; what else lies in it is left alone.
        redact: `FILE.py:FUNCTION`, called on each before it is written; '' for none.
        most: capsules that are kept.
        most_bytes: that they hold together.

    Attributes:
        counts: "kept"; "repeated" of a kind that is known well enough; "lost" as the disk is full,
            or one is too large; "omitted" and "redaction" by the hook.

    Raises:
        InputError: the redaction hook can't be loaded.
    """

    def __init__(
        self, folder: Path, redact: str = "", most: int = 200, most_bytes: int = 256 << 20
    ) -> None:
        self.folder, self._redact = Path(folder), redactor(redact)
        self._most, self._most_bytes = most, most_bytes
        self._kinds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def wants(self, seen: Answered) -> bool:
        """Say whether it needs to be told at all: all but failures pass it by."""
        return seen.error is not None

    def seen(self, prediction: Prediction, inputs: Arrays, outputs: Arrays | None) -> None:
        """Keep a prediction that failed through its inputs or the model."""
        del outputs
        if not prediction.failed or prediction.status in _NO_FAILURES or not inputs:
            return
        if self._known(prediction):
            self.counts["repeated"] += 1
            return
        try:
            whole = dataclasses.replace(prediction, inputs=inputs)
            self._keep(self._redact(whole) if self._redact else whole)
        except Withheld as withheld:
            self.counts[withheld.kind] += 1
        except (FettleError, OSError, ValueError, TypeError):
            self.counts["lost"] += 1
        else:
            self.counts["kept"] += 1

    def _known(self, prediction: Prediction) -> bool:
        """Count one of its kind: of one bundle, with one error, whatever the numbers in it."""
        p = prediction
        kind = f"{p.model} {p.sha} {p.status} {re.sub('[0-9]+', '#', p.error)[:200]}"
        if len(self._kinds) >= _MOST_KINDS and kind not in self._kinds:
            kind = ""
        self._kinds[kind] += 1
        return self._kinds[kind] > _MOST_OF_A_KIND

    def _keep(self, prediction: Prediction) -> None:
        capsule = Capsule(prediction, this_machine().to_json(), versions())
        size = sum(array.nbytes for array in capsule.inputs.values())
        if size > self._most_bytes:
            raise ValueError(f"{size} bytes of inputs are more than all capsules may hold")
        capsule.save(self.folder / _name(prediction))
        self._make_room()

    def _make_room(self) -> None:
        newest_first = sorted(self.folder.glob(f"{_PREFIX}*.npz"), reverse=True)
        total = 0
        for place, path in enumerate(newest_first):
            total += path.stat().st_size
            if place >= self._most or total > self._most_bytes:
                path.unlink(missing_ok=True)


def _name(prediction: Prediction) -> str:
    now = time.time_ns()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9))
    digest = hashlib.sha256(f"{prediction.id} {prediction.route}".encode("utf-8", "replace"))
    return f"{_PREFIX}{stamp}.{now % 10**9:09d}-{digest.hexdigest()[:8]}.npz"
