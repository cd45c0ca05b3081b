"""Where fettle keeps what it need not find out twice: compiled models, peaks of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$FETTLE_CACHE`, else `$XDG_CACHE_HOME/fettle`, else `~/.cache/fettle`.

    It need not exist, nor be writable: a cache that can't be kept costs time, nothing else.
    """
    if given := os.environ.get("FETTLE_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fettle"
