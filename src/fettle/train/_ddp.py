"""The strategy of several processes: distributed data parallel, by fresh interpreters."""

from __future__ import annotations

from lightning_fabric.strategies.ddp import DDPStrategy

from fettle.train._fabric import quiet


class QuietDDP(DDPStrategy):
    """DDP whose workers don't announce themselves; they log before any code of ours runs."""

    def __init__(self) -> None:
        # Not fork: torch's thread pools don't survive it.
        super().__init__(start_method="spawn")

    def setup_environment(self) -> None:
        """Join the process group."""
        with quiet():
            super().setup_environment()
