"""How a server is run: every option, declared once with its bounds, its unit and its meaning."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fettle.core.errors import InputError
from fettle.core.knobs import Knob, Range, Text, knobs_of

_DAY = 86400.0
_TOKEN = 16  # characters: less is guessed


@dataclass(frozen=True)
class Limits:
    """What one caller, and all of them together, may take of the server.

    Raises:
        KnobError: a limit out of its bounds.
    """

    queue: Annotated[
        int, Range(1, 1_000_000), "requests that a model holds before it answers 429"
    ] = 512
    deadline_seconds: Annotated[
        float, Range(0.001, _DAY), "how long a request may take from its first byte to its answer"
    ] = 30.0
    header_seconds: Annotated[float, Range(0.01, _DAY), "how long headers may take to come"] = 10.0
    body_seconds: Annotated[float, Range(0.01, _DAY), "how long a body may take to come"] = 30.0
    idle_seconds: Annotated[
        float, Range(0.01, _DAY), "how long a connection is kept that asks nothing"
    ] = 60.0
    send_seconds: Annotated[
        float, Range(0.01, _DAY), "how long a caller may take to fetch its answer"
    ] = 30.0
    drain_seconds: Annotated[
        float, Range(0, _DAY), "how long a stopping server waits for what it has begun"
    ] = 30.0
    body_bytes: Annotated[
        int, Range(1, 1 << 40), "size of a request's body, also once it is decompressed"
    ] = 64 << 20
    header_bytes: Annotated[int, Range(256, 1 << 30), "size of a request's line and headers"] = (
        16 << 10
    )
    header_count: Annotated[int, Range(8, 100_000), "number of a request's headers"] = 64
    tensor_elements: Annotated[int, Range(1, 1 << 40), "numbers in one tensor"] = 16 << 20
    connections: Annotated[int, Range(1, 1_000_000), "connections that are open at once"] = 1024
    bodies_bytes: Annotated[
        int, Range(1, 1 << 44), "memory for the bodies of all requests that are under way"
    ] = 1 << 30

    def __post_init__(self) -> None:
        check_knobs(self)


@dataclass(frozen=True)
class Settings(Limits):
    """The limits, where a server listens, how it runs its models, and who may ask it what.

    `tokens` are what callers of inference bring, `control_tokens` those who load, unload and read
    metrics. Without control tokens these are open to whoever reaches the server on loopback, and
    closed to all on other addresses.

    Raises:
        KnobError: a knob out of its bounds.
        InputError: a token that can be guessed, or a certificate without its key.
    """

    host: Annotated[str, Text("ADDRESS"), "address to listen on"] = "127.0.0.1"
    port: Annotated[int, Range(0, 65535), "port of REST; 0 takes a free one"] = 8000
    grpc_port: Annotated[
        int | None, Range(0, 65535), "port of gRPC; 0 takes a free one, none leaves it out"
    ] = None
    batch_delay_ms: Annotated[
        float, Range(0, 10_000), "how long a request waits for others to share a batch with"
    ] = 0.0
    max_batch: Annotated[
        int | None, Range(1, 65536), "largest batch; none takes what the checklist proved"
    ] = None
    threads: Annotated[int, Range(0, 4096), "threads of an engine; 0 takes all there are"] = 0
    allow_unproven: Annotated[
        bool, "serve a bundle whose verdict is no pass, or whose golden outputs differ here"
    ] = False
    isolate: Annotated[
        int, Range(0, 1024), "worker processes that run the engines; 0 runs them in threads"
    ] = 0
    watch_seconds: Annotated[
        float, Range(0, _DAY), "how often the folders are looked at for a new bundle; 0 never"
    ] = 0.0
    log: Path | None = None
    sample: Annotated[float, Range(0, 1), "share of predictions logged with their arrays"] = 0.0
    retention_rows: Annotated[int, Range(1, 1 << 40), "predictions that the log keeps"] = 1_000_000
    retention_days: Annotated[float, Range(0.001, 36500), "days that the log keeps"] = 30.0
    capsules: Path | None = None
    redact: Annotated[
        str, Text("FILE.py:FUNCTION"), "called on each row before it is logged, to blot out"
    ] = ""
    access_log: Annotated[bool, "one JSON line on stderr for each request"] = True
    trace_endpoint: Annotated[
        str, Text("URL"), "OpenTelemetry collector that is sent traces, over OTLP's HTTP"
    ] = ""
    trace_sample: Annotated[
        float, Range(0, 1), "share of requests traced whose callers don't say whether to"
    ] = 1.0
    tokens: tuple[str, ...] = field(default=(), repr=False)
    control_tokens: tuple[str, ...] = field(default=(), repr=False)
    certificate: Path | None = None
    key: Path | None = None
    insecure: Annotated[
        bool, "listen beyond loopback without tokens or without TLS, knowing what that means"
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for token in (*self.tokens, *self.control_tokens):
            _check_token(token)
        if (self.certificate is None) != (self.key is None):
            raise InputError("`--certificate` and `--key` belong together: give both or neither")

    @property
    def tls(self) -> bool:
        """Whether the server speaks TLS."""
        return self.certificate is not None


def check_knobs(settings: object) -> None:
    """Bring every knob to its own type; None stays where a knob allows it."""
    owner = type(settings).__name__.lower()
    for knob in knobs_of(type(settings)):
        value = getattr(settings, knob.name)
        if value is not None or not _optional(knob):
            object.__setattr__(settings, knob.name, _plain(knob).check(owner, value))


def _optional(knob: Knob) -> bool:
    return type(None) in typing.get_args(knob.type)


def _plain(knob: Knob) -> Knob:
    """Return the knob without its None."""
    if not _optional(knob):
        return knob
    kind: Any = next(k for k in typing.get_args(knob.type) if k is not type(None))
    return dataclasses.replace(knob, type=kind)


def _check_token(token: str) -> None:
    if len(token) < _TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"a token expects {_TOKEN} or more printable ASCII characters without blanks, got"
            f" {len(token)} characters; make one with `openssl rand -hex 32`"
        )
