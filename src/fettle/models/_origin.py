"""Where a module came from: enough to build its architecture again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from fettle.core.arrays import TensorSpec
from fettle.core.errors import ModelError
from fettle.core.signature import Signature

ATTRIBUTE = "fettle_origin"


@dataclass(frozen=True)
class Origin:
    """A model's specification, and the shape of the task that it was built for.

    Attributes:
        spec: what `fettle.models.load` was given.
        classes: how many the model tells apart; None: the family's own default holds.
        image: channels, height and width, where the task's one input is an image.
        inputs: of the task, where they are anything else: sequences, tokens, several.
        vocabulary: how many token ids there are; 0 where no input is an integer.
        config: the architecture itself, where the specification names files that may go away.
    """

    spec: str
    classes: int | None = None
    image: tuple[int, int, int] | None = None
    inputs: tuple[TensorSpec, ...] = ()
    vocabulary: int = 0
    config: Mapping[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def of(cls, spec: str, signature: Signature | None) -> Origin:
        """Return the origin of a model built from `spec` for `signature`."""
        if signature is None:
            return cls(spec)
        classes = signature.classes or None
        if len(signature.inputs) == 1 and len(signature.inputs[0].shape) == 4:
            return cls(spec, classes, signature.image)
        return cls(spec, classes, inputs=signature.inputs, vocabulary=signature.vocabulary)

    @property
    def in_channels(self) -> int | None:
        """Channels of the input image."""
        return self.image[0] if self.image else None

    @property
    def takes_tokens(self) -> bool:
        """Whether the first input holds whole numbers."""
        return bool(self.inputs) and self.inputs[0].dtype.startswith(("int", "uint"))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **asdict(self),
            "image": list(self.image) if self.image else None,
            "inputs": [spec.to_json() for spec in self.inputs],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Origin:
        """Read the JSON form.

        Raises:
            ModelError: it is no such form.
        """
        try:
            origin = cls(
                data["spec"],
                data["classes"],
                tuple(data["image"]) if data["image"] else None,
                tuple(_spec(entry) for entry in data.get("inputs", ())),
                data.get("vocabulary", 0),
                data.get("config"),
            )
        except (KeyError, TypeError, AttributeError):
            origin = cls("")
        if not origin._is_sound():
            raise ModelError(f"an origin with spec, classes and image was expected, got {data}")
        return origin

    def _is_sound(self) -> bool:
        shapes = [number for spec in self.inputs for number in spec.shape]
        numbers = [self.vocabulary, *(self.image or ()), *shapes]
        return (
            isinstance(self.spec, str)
            and self.spec != ""
            and isinstance(self.classes, int | None)
            and all(isinstance(number, int) for number in numbers)
            and (self.image is None or len(self.image) == 3)
            and isinstance(self.config, dict | None)
        )


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(str(entry["name"]), str(entry["dtype"]), tuple(entry["shape"]))


def origin_of(module: nn.Module) -> Origin:
    """Return where `module` came from.

    Raises:
        ModelError: it wasn't loaded by `fettle.models.load`.
    """
    origin = getattr(module, ATTRIBUTE, None)
    if not isinstance(origin, Origin):
        raise ModelError(
            f"this {type(module).__name__} doesn't say where it came from; load it with"
            " `fettle.models.load`, or set its `fettle_origin`"
        )
    return origin


def mark(module: nn.Module, origin: Origin) -> nn.Module:
    """Return `module` with its origin noted, in evaluation mode."""
    module.fettle_origin = origin  # type: ignore[assignment]
    return module.eval()
