"""What stands in for a block that was removed."""

from __future__ import annotations

from typing import Any

from torch import nn


class Bypass(nn.Module):
    """Returns its first argument, whatever else it is called with.

    `nn.Identity` takes one argument; layers of transformers are called with masks as well, and
    some return a tuple.

    Args:
        outputs: 0 returns the argument itself; n a tuple of it and n − 1 times None.
    """

    def __init__(self, outputs: int = 0) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first argument as it is, or as the first of `outputs`."""
        first = args[0] if args else next(iter(kwargs.values()))
        return first if not self.outputs else (first, *(None,) * (self.outputs - 1))
