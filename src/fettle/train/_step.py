"""One optimizer step: forward and backward over its micro-batches, clip, update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fettle.core.arrays import Batch
from fettle.core.errors import CheckFailed, DataError
from fettle.core.hashing import fingerprint
from fettle.train._job import Job
from fettle.train._optimizer import make_optimizer, set_lr
from fettle.train._tensors import first_output, inputs_of, refuse_nan

_LEAST_SCALE = 2.0**-14


class Stepper:
    """Holds the model and the optimizer as Fabric wrapped them for precision and devices."""

    def __init__(self, fabric: Any, job: Job) -> None:
        self.fabric, self.job = fabric, job
        if job.plan.precision != "32":  # convolutions in 16 bits are made for it
            lay_out(job.model, torch.channels_last)
        self.optimizer = make_optimizer(job.model, job.plan, job.hooks.parameters)
        self.module, self.wrapped_optimizer = fabric.setup(job.model, self.optimizer)

    def step(self, batches: Sequence[Batch], step: int, total: int) -> float:
        """Make optimizer step `step` of `total` on the mean loss of `batches`; return that loss.

        Raises:
            CheckFailed: the loss is not finite; the weights are still those before the step.
            DataError: that is so because the inputs aren't.
        """
        self._seed(step)
        set_lr(self.optimizer, self.job.plan.lr_factor(step, total))
        self.optimizer.zero_grad(set_to_none=True)
        mean = 0.0
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            with self.fabric.no_backward_sync(self.module, enabled=left > 0):
                loss = self._loss(batch) / len(batches)
                mean += self._finite(loss, batch, step)
                self.fabric.backward(loss)
        self._clip()
        self.wrapped_optimizer.step()
        return mean

    def check(self, step: int) -> None:
        """Raise CheckFailed if updates spoil the weights, or are all skipped for overflow."""
        scale = float(self.fabric.strategy.precision.state_dict().get("scale", 1.0))
        if scale < _LEAST_SCALE:
            raise self._diverged(f"the loss scale fell to {scale:g}, gradients overflow", step)
        for name, parameter in self.job.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise self._diverged(f"the weights `{name}` are no longer finite", step)

    def close(self) -> None:
        """Give the weights the layout back that models are kept in."""
        lay_out(self.job.model, torch.contiguous_format)

    def _seed(self, step: int) -> None:
        """Make what is random in this step depend on the seed, the step and the rank alone."""
        digits = fingerprint([self.job.context.seed, step, self.fabric.global_rank])
        torch.manual_seed(int(digits, 16) >> 1)

    def _loss(self, batch: Batch) -> Tensor:
        try:
            return self._computed(batch)
        except Exception as error:
            refuse_nan(batch.inputs)  # observers of ranges raise of them
            if len(batch) == 1:  # so do batch norms
                raise DataError(
                    f"the model can't be trained on batches of one example ({error}); raise"
                    " `batch_size`, or give the training split more examples"
                ) from error
            raise

    def _computed(self, batch: Batch) -> Tensor:
        inputs = inputs_of(batch, self.job.task, self.fabric.device)
        if self.job.hooks.loss:
            return self.job.hooks.loss(self.module, inputs, batch)
        outputs = first_output(self.module(*inputs))  # (n, classes)
        return self.job.task.loss(outputs, batch, self.job.plan.label_smoothing)

    def _clip(self) -> None:
        if self.job.plan.clip:
            # Not an error: under loss scaling an overflow is normal, and the step is skipped.
            self.fabric.clip_gradients(
                self.module,
                self.wrapped_optimizer,
                max_norm=self.job.plan.clip,
                error_if_nonfinite=False,
            )

    def _finite(self, loss: Tensor, batch: Batch, step: int) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            refuse_nan(batch.inputs)
            raise self._diverged(f"the loss is {value}", step)
        return value

    def _diverged(self, what: str, step: int) -> CheckFailed:
        plan = self.job.plan
        mends = [f"lower `lr` (it is {plan.lr:g})"]
        if not plan.clip:
            mends.append("clip gradients (`clip=1.0`)")
        if plan.precision == "16-mixed":
            mends.append("use `precision='bf16-mixed'`")
        stays = "; the last good checkpoint stays" if self.job.context.checkpoints else ""
        return CheckFailed(
            f"training diverged at step {step + 1}: {what}; to mend it, {' or '.join(mends)}{stays}"
        )


def lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Order the weights of convolutions of images in memory, in place; values stay."""
    model.to(memory_format=layout)  # type: ignore[call-overload]
