"""Running a model over a split: what it says, and how good that is."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fettle.core.arrays import Split
from fettle.core.errors import DataError
from fettle.tasks import Task
from fettle.train._tensors import device_of, first_output, inputs_of
from fettle.train.hooks import SetMode, switch_mode


def predict(
    model: nn.Module,
    task: Task,
    split: Split,
    batch_size: int = 256,
    set_mode: SetMode = switch_mode,
) -> tuple[np.ndarray, np.ndarray]:
    """Run `model` over a split, on the device where it is; it is left in evaluation mode.

    Returns:
        Outputs, float32, batch first, and what each example adds to the metric, shape (n,), in the
        split's order.

    Raises:
        DataError: the split is empty.
        ModelError: the model returns no tensor.
    """
    set_mode(model, False)
    device = device_of(model)
    outputs, scores = [], []
    # Not inference_mode(): observers keep tensors from here that later training steps reuse.
    with torch.no_grad():
        for batch in task.batches(split, batch_size=batch_size):
            logits = first_output(model(*inputs_of(batch, task, device)))  # (n, classes)
            array = logits.float().cpu().numpy()
            outputs.append(array)
            scores.append(task.score({"output": array}, batch))
    if not outputs:
        raise DataError(f"the split `{split}` has no examples; give the task some")
    return np.concatenate(outputs), task.contributions(np.concatenate(scores), split)


def accuracy(
    model: nn.Module,
    task: Task,
    split: Split,
    batch_size: int = 256,
    set_mode: SetMode = switch_mode,
) -> float:
    """Return the metric of `model` over a split: for top-1, a fraction from 0 to 1."""
    _, scores = predict(model, task, split, batch_size, set_mode)
    return float(scores.mean())
