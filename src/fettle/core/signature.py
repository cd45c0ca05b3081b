"""The shape of a task: what goes into its model and how many classes come out."""

from __future__ import annotations

from dataclasses import dataclass

from fettle.core.arrays import TensorSpec


@dataclass(frozen=True)
class Signature:
    """Inputs of a model (batch dimension -1) and how many numbers it gives each example.

    `classes` is 0 where that is the model's own affair: nothing is known of its outputs' shape.
    `vocabulary` is how many token ids there are: integer inputs are below it. It is 0 where no
    input is an integer.
    """

    inputs: tuple[TensorSpec, ...]
    classes: int
    vocabulary: int = 0

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of the first input."""
        _, channels, height, width = self.inputs[0].shape
        return channels, height, width
