"""Every error that fettle raises on purpose.

```
FettleError                     exit code
├── InputError                  2   something the user gave is wrong
│   ├── UnknownName             2   no such plug-in, model, source; names the nearest
│   ├── KnobError               2   a knob out of bounds or of the wrong type
│   ├── RecipeError             2   a recipe that doesn't parse
│   ├── ModelError              2   a model or weights file that can't be used
│   ├── DataError               2   data that is missing, truncated, mis-shaped or invalid
│   └── BundleError             2   a bundle that is corrupted, tampered with or not one
├── MissingError                3   a package or a device that isn't here, with the mend
├── CheckFailed                 1   a check of fettle's own that did not hold
│   └── ParityError             1   an exported or lowered graph that computes something else
└── StorageError                2   a disk that is full or a folder that can't be written
```

A message says what was expected, what came, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FettleError(Exception):
    """Base of every error that fettle raises on purpose."""

    exit_code = 2


class InputError(FettleError):
    """Something the user gave is wrong."""


class UnknownName(InputError):
    """A name that nothing answers to; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.known = sorted(known)
        self.nearest = nearest(name, self.known)
        if self.nearest:
            hint = "did you mean " + " or ".join(f"`{near}`" for near in self.nearest) + "?"
        else:
            shown = ", ".join(self.known[:12]) + (", …" if len(self.known) > 12 else "")
            hint = f"known: {shown or 'none'}"
        super().__init__(f"unknown {kind} `{name}`; {hint}")


class KnobError(InputError):
    """A knob out of its bounds or of the wrong type."""


class RecipeError(InputError):
    """A recipe that doesn't parse."""


class ModelError(InputError):
    """A model, or a file of weights, that can't be used."""


class DataError(InputError):
    """Data that is missing, truncated, of the wrong shape, or invalid."""


class BundleError(InputError):
    """A bundle that is corrupted, tampered with, or not a bundle."""


class StorageError(FettleError):
    """A disk that is full, or a folder that can't be written."""


class MissingError(FettleError):
    """A package or a device that is not on this machine; `mend` is the exact command."""

    exit_code = 3

    def __init__(self, what: str, mend: str) -> None:
        self.mend = mend
        super().__init__(f"{what}; to mend it: {mend}")


class CheckFailed(FettleError):
    """A check of fettle's own that did not hold."""

    exit_code = 1


class ParityError(CheckFailed):
    """A graph that doesn't compute what the model it came from computes."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of `known` that look like `name`, best first."""
    pool = list(known)
    close = difflib.get_close_matches(name.lower(), [k.lower() for k in pool], count, cutoff=0.5)
    by_lower = {k.lower(): k for k in pool}
    return [by_lower[c] for c in close]
