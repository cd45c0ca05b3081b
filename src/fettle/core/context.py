"""Where a technique works: its seed, a folder for checkpoints, and who watches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fettle.core.progress import Reporter, Silent


@dataclass(frozen=True)
class Context:
    """Circumstances of a run. They are no knobs, so a recipe doesn't name them.

    `checkpoints` is a folder where long work saves its state and from which it continues;
    without one it starts anew each time. `teacher` is a torch module to learn from, for the
    techniques that distill; without one they learn from the model that comes in.
    """

    seed: int = 0
    checkpoints: Path | None = None
    progress: Reporter = field(default_factory=Silent)
    teacher: Any = None
