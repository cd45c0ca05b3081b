"""Where a technique works: its seed, a folder for checkpoints, and who watches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fettle.core.progress import Reporter, Silent


@dataclass(frozen=True)
class Context:
    """Circumstances of a run. They are no knobs: they never change what a recipe means.

    `checkpoints` is a folder where long work saves its state and from which it continues;
    without one it starts anew each time.
    """

    seed: int = 0
    checkpoints: Path | None = None
    progress: Reporter = field(default_factory=Silent)
