"""The rivals' virtual environments: one each, made of exact pins, apart from fettle's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fettle.core.cache import cache_folder

PINS = Path(__file__).resolve().parent / "_serving_rivals"
DEFAULT = cache_folder() / "benchmarks" / "serving"


def environment(name: str, folder: Path) -> Path:
    """Return the folder of programs of a rival's environment, which is made where it is missing.

    `_serving_rivals/<name>.txt` holds every package with its version. What was made of other pins
    is made anew.
    """
    root, pins = folder / name, PINS / f"{name}.txt"
    kept = root / "pins.txt"  # written last
    if not kept.is_file() or kept.read_text() != pins.read_text():
        print(f"installing {name} into {root} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(root)], check=True)
        pip = [str(root / "bin" / "pip"), "install", "--quiet", "--no-deps", "-r", str(pins)]
        subprocess.run(pip, check=True)
        kept.write_text(pins.read_text())
    return root / "bin"


def version(name: str) -> str:
    """Return the version that a rival's pins name."""
    lines = (line.split("==") for line in (PINS / f"{name}.txt").read_text().splitlines())
    return dict(line for line in lines if len(line) == 2)[PACKAGES[name]]


PACKAGES = {
    "litserve": "litserve",
    "bentoml": "bentoml",
    "mlserver": "mlserver",
    "kserve": "kserve",
    "pytriton": "nvidia-pytriton",
}
