"""From a batch's arrays to a model's arguments, and from what it returns to one tensor."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fettle.core.arrays import Arrays, Batch
from fettle.core.errors import DataError, ModelError
from fettle.tasks import Task


def inputs_of(batch: Batch, task: Task, device: torch.device) -> tuple[Tensor, ...]:
    """Return the model's arguments in the order of the task's signature, each (n, …).

    Raises:
        DataError: the batch lacks an input that the signature names.
    """
    names = [spec.name for spec in task.signature.inputs]
    missing = [name for name in names if name not in batch.inputs]
    if missing:
        raise DataError(
            f"the task's signature names the inputs {names}, a batch came with"
            f" {sorted(batch.inputs)}; give `{missing[0]}` in `Batch.inputs`"
        )
    # A copy: from_numpy() warns about arrays that can't be written, such as memory maps.
    return tuple(torch.tensor(batch.inputs[name]).to(device) for name in names)


def refuse_nan(inputs: Arrays) -> None:
    """Raise DataError if an input holds NaN or infinity; for use when a result does.

    Raises:
        DataError: as it says.
    """
    for name, array in inputs.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise DataError(
                f"finite numbers were expected, but the input `{name}` holds NaN or infinity in"
                " some examples; mend or drop those"
            )


def first_output(outputs: Any) -> Tensor:
    """Return what a model computes as one tensor: itself, or the first of several.

    Raises:
        ModelError: there is no tensor in it.
    """
    found = outputs
    if isinstance(found, Mapping):
        found = next(iter(found.values()), None)
    elif isinstance(found, Sequence):
        found = found[0] if found else None
    if not isinstance(found, Tensor):
        raise ModelError(
            f"the model was expected to return a tensor, or a tuple or mapping that starts with"
            f" one, but it returned {type(outputs).__name__}; wrap it in a module that does"
        )
    return found


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer; the CPU when it has none."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return tensor.device if tensor is not None else torch.device("cpu")
