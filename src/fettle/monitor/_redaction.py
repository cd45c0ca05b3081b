"""The redaction hook: a function of the user's own that blots out what must not be kept."""

from __future__ import annotations

from collections.abc import Callable

from fettle.core.errors import InputError
from fettle.core.usercode import find_function
from fettle.monitor.prediction import Prediction

Redact = Callable[[Prediction], Prediction]


class Withheld(Exception):
    """A row that is not kept; `kind` says why: "omitted" on purpose, or "redaction" that failed."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)


def redactor(spec: str) -> Redact | None:
    """Return the function that `spec` names, made safe; None for '', which keeps all as it is.

    It is given each row with its arrays, and returns what may be kept, or None for nothing. What
    it fails on is withheld too: better a row less than a secret more.

    Raises:
        InputError: there is no such function.
    """
    if not spec:
        return None
    function = find_function(spec, InputError)

    def redact(prediction: Prediction) -> Prediction:
        try:
            kept = function(prediction)
        except Exception as error:  # anyone's code
            raise Withheld("redaction") from error
        if kept is None:
            raise Withheld("omitted")
        if not isinstance(kept, Prediction):
            raise Withheld("redaction")
        return kept

    return redact
