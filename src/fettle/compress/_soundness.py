"""Whether a model does its task before anything is done to it.

What is wrong already would come out as the fault of a technique, as a training that diverged, or
not at all: a range, an importance or a running mean that a NaN got into means nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fettle.core.errors import ModelError
from fettle.tasks import Task
from fettle.train import device_of, refuse_nan


def check_sound(technique: str, model: nn.Module, task: Task) -> None:
    """Run `model`, which stays as it is, on example inputs of its task.

    Raises:
        ModelError: it can't take them, or its weights or outputs are not finite, or its outputs
            are no floats of shape (n, classes), or (n, …) where the task leaves that open.
        DataError: the inputs hold NaN or infinity, and so do the outputs.
    """
    check_weights(f"`{technique}`", model)
    inputs = task.example_inputs(2)
    tensors = tuple(torch.tensor(array).to(device_of(model)) for array in inputs.values())
    outputs = _outputs(technique, model, tensors)
    classes = task.signature.classes
    shape = (len(tensors[0]), classes) if classes else (len(tensors[0]), *outputs.shape[1:])
    if tuple(outputs.shape) != shape or not outputs.is_floating_point():
        raise ModelError(
            f"`{technique}` expects a model that gives each example {classes or 'its'} numbers, as"
            f" the task has classes or values, but this one gives {outputs.dtype} of shape"
            f" {tuple(outputs.shape)}; give the model and the data that belong together"
        )
    if not bool(torch.isfinite(outputs).all()):
        refuse_nan(inputs)
        raise ModelError(
            f"`{technique}` got a model whose outputs on example inputs are not finite, though its"
            " weights and the inputs are; mend the model first"
        )


def check_weights(who: str, model: nn.Module) -> None:
    """Raise ModelError unless all parameters are finite."""
    for name, parameter in model.named_parameters():
        if type(parameter.data) is Tensor and not bool(torch.isfinite(parameter.data).all()):
            raise ModelError(
                f"{who} needs finite weights, but `{name}` holds NaN or infinity; load sound"
                " weights"
            )


@torch.no_grad()
def _outputs(technique: str, model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    modes = [(module, module.training) for module in model.modules()]
    try:
        outputs = model.eval()(*inputs)
    except Exception as error:  # a model's own code raises what it likes
        given = ", ".join(f"{t.dtype} {tuple(t.shape)}".removeprefix("torch.") for t in inputs)
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"`{technique}` can't run the model on the task's inputs ({given}): {line}; give the"
            " model and the data that belong together"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(outputs, Tensor):
        raise ModelError(
            f"`{technique}` expects a model that returns one tensor, the logits, but this one"
            f" returns {type(outputs).__name__}; wrap it in a module that returns them alone"
        )
    return outputs
