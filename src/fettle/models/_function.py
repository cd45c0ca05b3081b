"""`path/file.py:function` and `package.module:function`: models of the user's own."""

from __future__ import annotations

import inspect

from torch import nn

from fettle.core.errors import ModelError
from fettle.core.usercode import find_function
from fettle.models._origin import Origin


def build(spec: str, origin: Origin) -> nn.Module:
    """Return what the function of `spec` returns.

    It is called with those of `classes`, `num_classes`, `in_channels`, `in_chans`, `vocabulary`
    and `vocab_size` that it has parameters for. What it returns takes the task's inputs in order.

    Raises:
        ModelError: no such file or function, it raises, or returns something else.
    """
    function = find_function(spec, ModelError)
    values = {
        "classes": origin.classes,
        "num_classes": origin.classes,
        "in_channels": origin.in_channels,
        "in_chans": origin.in_channels,
        "vocabulary": origin.vocabulary or None,
        "vocab_size": origin.vocabulary or None,
    }
    accepted = inspect.signature(function).parameters
    given = {k: v for k, v in values.items() if k in accepted and v is not None}
    try:
        module = function(**given)
    except Exception as error:
        raise ModelError(f"`{spec}` raised {type(error).__name__}: {error}; mend it") from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"`{spec}` is expected to return a torch.nn.Module, got {type(module).__name__}"
        )
    return module
