"""One request and its reply, between the sockets and the handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import orjson

from fettle.core.errors import FettleError
from fettle.serve.errors import BadRequest, Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON = b"application/json"
BINARY = b"application/octet-stream"


class Reply(NamedTuple):
    """What goes back: a status, a body of some type, and further headers."""

    status: int
    body: bytes = b""
    kind: bytes = JSON
    headers: Sequence[Header] = ()


class Call:
    """One HTTP request.

    Attributes:
        scope, receive: of ASGI.
        started: when it was taken up, in seconds of `time.monotonic`.
        headers: by their name in lower case; of several of one name the last.
        unread: whether some of its body may still be on its way.
        taken: bytes of its body that were read, as they came.
        id: of the prediction, once it is known.
    """

    __slots__ = ("headers", "id", "receive", "scope", "started", "taken", "unread")

    def __init__(self, scope: Scope, receive: Receive, started: float) -> None:
        self.scope, self.receive, self.started = scope, receive, started
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        announced = self.headers.get(b"content-length", b"0").strip(b"0")
        self.unread = bool(announced) or b"transfer-encoding" in self.headers
        self.taken, self.id = 0, ""

    @property
    def method(self) -> str:
        """GET, POST and so on."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path, with its escapes undone."""
        return str(self.scope["path"])

    @property
    def peer(self) -> str:
        """The caller's address, '' if it isn't known."""
        client = self.scope.get("client")
        return f"{client[0]}:{client[1]}" if client else ""

    def single(self, name: bytes) -> bytes | None:
        """Return a header that may come once, None if it is not there.

        Raises:
            BadRequest: it came more than once.
        """
        value = self.headers.get(name)
        if value is not None and sum(key == name for key, _ in self.scope["headers"]) > 1:
            raise BadRequest(
                f"the header `{name.decode()}` was expected once, got it several times"
            )
        return value

    def number(self, name: bytes) -> int | None:
        """Return a header that is a whole number, None if it is not there.

        Raises:
            BadRequest: it is something else.
        """
        value = self.single(name)
        if value is None:
            return None
        if not value.isdigit() or len(value) > 18:
            got = value[:40].decode("ascii", "backslashreplace")
            raise BadRequest(f"the header `{name.decode()}` expects a whole number, got '{got}'")
        return int(value)


Handler = Callable[[Call, str, str | None], Awaitable[Reply]]
"""Answers a call; the model and the version that its path names come beside it."""


def told(value: Any, status: int = 200) -> Reply:
    """Return `value` as JSON."""
    return Reply(status, orjson.dumps(value))


def refusal(error: Refused) -> Reply:
    """Return what a caller that is refused is told: `{"error": …}`."""
    headers = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    return Reply(error.status, orjson.dumps({"error": safe(str(error))}), JSON, headers)


def safe(text: str) -> str:
    """Return `text` as UTF-8 can carry it: a half of a surrogate pair is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_refused(error: FettleError) -> Refused:
    """Return an error of fettle's own as what a caller is told."""
    return error if isinstance(error, Refused) else BadRequest(str(error))
