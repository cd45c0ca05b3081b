"""The one place that builds a Fabric, and that keeps it quiet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch

from fettle.core.errors import MissingError
from fettle.core.shelf import INSTALL
from fettle.train.plan import FitPlan

_CHATTY = ("lightning_fabric", "torch.multiprocessing.spawn")


def accelerator_of(plan: FitPlan) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        MissingError: the plan asks for more GPUs than there are.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if plan.accelerator == "cpu" or (plan.accelerator == "auto" and gpus == 0):
        return "cpu"
    if plan.devices > gpus:
        mend = f"set devices to {gpus} or fewer" if gpus else "set accelerator to 'cpu'"
        raise MissingError(f"`devices={plan.devices}` on cuda, but {gpus} GPUs are here", mend)
    return "cuda"


def make_fabric(plan: FitPlan) -> Any:
    """Return a `lightning_fabric.Fabric` for the plan, launched if it needs one process only.

    Raises:
        MissingError: Lightning Fabric is not installed, or there are not enough GPUs.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.precision import MixedPrecision, Precision
    except ModuleNotFoundError as error:
        raise MissingError(
            "training needs lightning-fabric", INSTALL["lightning_fabric"]
        ) from error
    accelerator = accelerator_of(plan)
    # As a plug-in, since `precision="16-mixed"` on a CPU silently becomes bf16 in Fabric.
    kind: Any = plan.precision
    precision = Precision() if kind == "32" else MixedPrecision(kind, accelerator)
    strategy: Any = "auto"
    if plan.devices > 1:
        from fettle.train._ddp import QuietDDP

        strategy = QuietDDP()
    with quiet():
        return Fabric(
            accelerator=accelerator,
            devices=plan.devices,
            strategy=strategy,
            plugins=[precision],
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop notes such as which precision is used or which worker is stopped: we say that."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
