"""Every reason for which a request is refused, each with the status that its caller is told.

```
Refused                    HTTP
├── BadRequest             400   malformed, or not what the model takes
├── Unauthorized           401   a token is missing or wrong
├── Forbidden              403   what is switched off here
├── NotFound               404   no such route, model or version
├── WrongMethod            405   a route that answers other methods; `Allow` names them
├── TooSlow                408   headers or a body that didn't come in time
├── Conflict               409   not in the state that this needs
├── TooLarge               413   a body or a tensor past the limit
├── Unsupported            415   an encoding that isn't read here
├── HeadersTooLarge        431   headers past the limit
├── Busy                   429   the queue is full; `Retry-After` says when to come again
├── Broken                 500   the engine failed
├── NotReady               503   loading, or about to stop
└── Late                   504   the deadline passed before the answer came
```

REST answers with `status`, `headers` and `{"error": message}`; gRPC maps the status to its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fettle.core.errors import FettleError


class Refused(FettleError):
    """A request that is not answered with a prediction; `headers` go with the answer."""

    status = 500

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.headers: dict[str, str] = dict(headers or {})
        super().__init__(message)


class BadRequest(Refused):
    """The request is malformed, or is not what the model takes."""

    status = 400


class Unauthorized(Refused):
    """A token is missing or wrong."""

    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message, {"WWW-Authenticate": 'Bearer realm="fettle"'})


class Forbidden(Refused):
    """What was asked for is switched off on this server."""

    status = 403


class NotFound(Refused):
    """No such route, model or version."""

    status = 404


class WrongMethod(Refused):
    """The route answers other methods than this one."""

    status = 405

    def __init__(self, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message, {"Allow": ", ".join(allowed)})


class TooSlow(Refused):
    """The headers or the body did not come in time."""

    status = 408


class Conflict(Refused):
    """The model is not in the state that this needs."""

    status = 409


class TooLarge(Refused):
    """A body or a tensor is past its limit."""

    status = 413


class Unsupported(Refused):
    """An encoding that is not read here."""

    status = 415


class HeadersTooLarge(Refused):
    """The headers are past their limit."""

    status = 431


class Busy(Refused):
    """As many requests are held as may be; come again in `retry_after` seconds."""

    status = 429

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = max(1, retry_after)
        super().__init__(
            f"{message}; try again in {self.retry_after} s", {"Retry-After": str(self.retry_after)}
        )


class Broken(Refused):
    """The engine failed on this request."""

    status = 500


class NotReady(Refused):
    """The model, or the server, is not ready to answer: it loads, or is about to stop."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = max(1, retry_after)
        super().__init__(message, {"Retry-After": str(self.retry_after)})


class Late(Refused):
    """The deadline passed before the answer came."""

    status = 504
