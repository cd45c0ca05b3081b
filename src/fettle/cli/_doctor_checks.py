"""What stands in the way on this machine, each with its mend."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fettle.core.cache import cache_folder
from fettle.core.cgroup import ROOT
from fettle.core.machine import Machine

_ROOM = 2 << 30  # bytes of a model's study: cached stages, exports, bundles
_SHARED = 256 << 20  # bytes: batches on their way from the loaders' processes


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `mend` is a line to copy."""

    what: str
    mend: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON form."""
        return asdict(self)


def problems(machine: Machine, root: Path = ROOT) -> list[Problem]:
    """Return everything that is wrong."""
    found = [_governor(machine), _compiler(), *_cache(cache_folder()), _shared_memory(root)]
    return [problem for problem in (*found, _torchvision()) if problem]


def _governor(machine: Machine) -> Problem | None:
    governor = machine.details.governor
    if governor in (None, "performance"):
        return None
    return Problem(
        f"the clock rate follows the load (governor {governor}), which makes timings drift",
        "sudo cpupower frequency-set -g performance",
    )


def _compiler() -> Problem | None:
    if not importlib.util.find_spec("torch") or any(map(shutil.which, ("g++", "clang++", "cl"))):
        return None
    return Problem("torch.compile finds no C++ compiler", "sudo apt-get install g++  # or set CXX")


def _cache(folder: Path) -> Iterator[Problem]:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        yield Problem(
            f"the cache folder {folder} can't be written: compiled models are made anew each time",
            "export FETTLE_CACHE=/a/folder/of/yours",
        )
    free = shutil.disk_usage(nearest).free
    if free < _ROOM:
        yield Problem(
            f"{free / (1 << 30):.1f} GiB are free where the cache lies ({nearest})",
            "export FETTLE_CACHE=/a/folder/with/room",
        )


def _shared_memory(root: Path) -> Problem | None:
    folder = root / "dev/shm"
    if not folder.is_dir() or (size := shutil.disk_usage(folder).total) >= _SHARED:
        return None
    return Problem(
        f"{folder} holds {size >> 20} MiB: training with several loader processes dies of a bus"
        " error",
        "docker run --shm-size=2g …",
    )


def _torchvision() -> Problem | None:
    """Say where torchvision's C++ operators don't load; fettle's classifiers need none of them."""
    if not importlib.util.find_spec("torch") or not importlib.util.find_spec("torchvision"):
        return None
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError, OSError) as error:
        return Problem(
            f"torchvision's C++ operators don't fit this torch ({str(error).splitlines()[0]});"
            " fettle's classifiers run without them, detection models don't",
            "pip install --force-reinstall torch torchvision  # both from one index",
        )
    return None
