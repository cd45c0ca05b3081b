"""Where a module came from: enough to build its architecture again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from fettle.core.errors import ModelError
from fettle.core.signature import Signature

ATTRIBUTE = "fettle_origin"


@dataclass(frozen=True)
class Origin:
    """A model's specification, and the shape of the task that it was built for.

    `image` is (channels, height, width). Where it is None, the family's own default holds.
    """

    spec: str
    classes: int | None = None
    image: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, spec: str, signature: Signature | None) -> Origin:
        """Return the origin of a model built from `spec` for `signature`."""
        if signature is None:
            return cls(spec)
        is_image = len(signature.inputs[0].shape) == 4
        return cls(spec, signature.classes, signature.image if is_image else None)

    @property
    def in_channels(self) -> int | None:
        """Channels of the input image."""
        return self.image[0] if self.image else None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "image": list(self.image) if self.image else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Origin:
        """Read the JSON form.

        Raises:
            ModelError: it is no such form.
        """
        spec, classes, image = (data.get(key) for key in ("spec", "classes", "image"))
        numbers = [classes, *(image if isinstance(image, list) else [])]
        sound = isinstance(spec, str) and all(n is None or isinstance(n, int) for n in numbers)
        if not sound or (image is not None and len(numbers) != 4):
            raise ModelError(f"an origin with spec, classes and image was expected, got {data}")
        return cls(str(spec), classes, tuple(image) if image else None)


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
