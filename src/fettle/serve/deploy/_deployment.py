"""The seam of a deployment: it fills a folder from a bundle, and says what to run next."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.core.bundle import Bundle
from fettle.core.errors import BundleError, InputError
from fettle.core.files import replacing_folder
from fettle.core.plugin import Plugin

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # what Kubernetes allows, too


@dataclass(frozen=True)
class Deployed:
    """What was written: the files below the folder, and the commands that come next."""

    files: tuple[str, ...]
    commands: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"files": list(self.files), "commands": list(self.commands)}


@dataclass(frozen=True, kw_only=True)
class Deployment(Plugin, ABC):
    """A way of serving a bundle with something else than `fettle serve`."""

    @abstractmethod
    def fill(self, bundle: Bundle, name: str, folder: Path) -> tuple[str, ...]:
        """Write the files into an empty folder; return the commands that come next.

        In a command `{folder}` stands for where the files come to lie.

        Raises:
            FettleError: the bundle can't be deployed in this way; the message says why.
        """


def deploy(
    way: Deployment, bundle: Bundle, name: str, out: Path, allow_unproven: bool = False
) -> Deployed:
    """Write what `way` makes of the bundle into the folder `out`, whole or not at all.

    Raises:
        BundleError: a bundle whose verdict is no pass, unless that is allowed.
        InputError: a name that servers wouldn't take, or a folder that isn't empty.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a model's name expects small letters, digits and dashes, at most 63, got `{name}`:"
            " give another with `--name`"
        )
    outcome = (bundle.manifest.verdict or {}).get("outcome", "none")
    if outcome != "pass" and not allow_unproven:
        raise BundleError(
            f"{bundle.path} is not proven (its verdict is {outcome}): deploy one that is, or give"
            " `--allow-unproven`"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"an empty folder was expected, {out} is not: name another with `--out`")
    with replacing_folder(out) as folder:
        commands = way.fill(bundle, name, folder)
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    where = str(out.resolve())  # Docker takes a relative path for a volume's name
    return Deployed(tuple(files), tuple(text.replace("{folder}", where) for text in commands))


def batch_sizes(bundle: Bundle) -> tuple[int, ...]:
    """Return the batch sizes that the bundle's checklist proved; empty where it has none.

    `fettle check` writes them.
    """
    rows = [row for row in bundle.manifest.checks if row.get("name") == "batches"]
    return tuple(sorted(int(size) for size in rows[-1]["sizes"])) if rows else ()
