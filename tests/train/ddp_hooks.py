"""Hooks that worker processes can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from fettle.core.errors import MissingError
from fettle.train import EpochRecord


@dataclass
class SaveWeights:
    """Keeps what every rank has after each epoch."""

    folder: Path

    def __call__(self, model: nn.Module, record: EpochRecord) -> None:
        save_file(model.state_dict(), self.folder / f"rank{dist.get_rank()}.safetensors")


def fail(model: nn.Module, step: int, total: int) -> None:
    if dist.get_rank() == 1 and step == 2:
        raise MissingError("a thing is not here", "pip install thing")


def fail_foreign(model: nn.Module, step: int, total: int) -> None:
    if dist.get_rank() == 1:
        raise ZeroDivisionError("not ours")


def interrupt_parent(model: nn.Module, step: int, total: int) -> None:
    """Press Ctrl-C in the parent, and go slowly from there so that it comes before the end."""
    if dist.get_rank() == 0 and step == 3:
        os.kill(os.getppid(), signal.SIGINT)
    if step >= 3:
        time.sleep(0.5)
