"""The gRPC server, which runs in the event loop that starts it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fettle.core.errors import InputError, MissingError
from fettle.serve.http.security import Gate, tls_context
from fettle.serve.room import Room
from fettle.serve.settings import Settings

if TYPE_CHECKING:
    from fettle.serve.grpc.handlers import Handlers
    from fettle.serve.http.access import Access
    from fettle.serve.service import Service
    from fettle.serve.tracing.spans import Tracing

_INSTALL = "pip install 'fettle[grpc]'"
_PACKAGES = ("grpc", "google.protobuf", "grpc_health.v1", "grpc_reflection.v1alpha")


class GrpcServer:
    """A running server.

    Attributes:
        port: on which it listens.
    """

    def __init__(self, server: Any, handlers: Handlers, port: int) -> None:
        self._server, self._handlers, self.port = server, handlers, port

    async def stop(self, drain_seconds: float) -> None:
        """Let in nothing more, and answer what was let in within the drain limit."""
        self._handlers.stopping = True
        await self._server.stop(drain_seconds)


async def start_grpc(
    service: Service,
    settings: Settings,
    room: Room | None = None,
    access: Callable[[Access], None] | None = None,
    tracing: Tracing | None = None,
) -> GrpcServer:
    """Start to listen on `settings.grpc_port`; with a certificate over TLS.

    Args:
        service: answers for the models.
        settings: where and how.
        room: for the bodies of requests, shared with REST; None for one of its own.
        access: is told of each call; None for no access log.
        tracing: makes a span for each call; None for no traces.

    Raises:
        InputError: the settings leave the server open to strangers, the address is taken, or the
            certificate can't be read.
        MissingError: gRPC's packages aren't here.
    """
    _expect_packages()
    import grpc  # type: ignore[import-untyped]

    from fettle.serve.grpc.handlers import Handlers
    from fettle.serve.grpc.health import Health

    handlers = Handlers(service, Gate(settings), room or Room(settings), access)
    server = grpc.aio.server(
        interceptors=_interceptors(tracing),
        options=_options(settings),
        maximum_concurrent_rpcs=settings.connections,
    )
    server.add_generic_rpc_handlers((handlers.generic(), Health(handlers.ready).generic()))
    _reflect(server)
    port = _listen(server, settings)
    await server.start()
    return GrpcServer(server, handlers, port)


def _interceptors(tracing: Tracing | None) -> Sequence[Any]:
    if tracing is None:
        return ()
    from fettle.serve.tracing.grpc import Interceptor

    return (Interceptor(tracing),)


def _expect_packages() -> None:
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise MissingError(f"gRPC needs the package `{error.name}`", _INSTALL) from error


def _options(settings: Settings) -> list[tuple[str, int]]:
    idle_ms = round(min(settings.idle_seconds, 2_000_000) * 1000)
    return [
        ("grpc.max_receive_message_length", min(settings.body_bytes, (1 << 31) - 1)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.header_bytes),
        ("grpc.absolute_max_metadata_size", settings.header_bytes),
        ("grpc.max_connection_idle_ms", idle_ms),
        ("grpc.server_handshake_timeout_ms", round(settings.header_seconds * 1000)),
        ("grpc.so_reuseport", 0),  # a taken port is an error, not a share of its callers
    ]


def _reflect(server: Any) -> None:
    """Let clients ask what services and messages there are."""
    from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

    from fettle.serve.grpc import health
    from fettle.serve.grpc._interface import SERVICE
    from fettle.serve.grpc.messages import pool

    names = (SERVICE, health.NAME)
    reflection.enable_server_reflection(names, server, pool=pool())


def _listen(server: Any, settings: Settings) -> int:
    host = settings.host.strip("[]")
    address = f"{f'[{host}]' if ':' in host else host}:{settings.grpc_port or 0}"
    try:
        if settings.tls:
            return int(server.add_secure_port(address, _credentials(settings)))
        return int(server.add_insecure_port(address))
    except RuntimeError as error:
        raise InputError(
            f"can't listen on {address}: {error}; choose another --host or --grpc-port"
            " (0 takes a free one)"
        ) from error


def _credentials(settings: Settings) -> Any:
    """Return what TLS needs; a certificate that was renewed is read with the next handshake."""
    import grpc

    tls_context(settings)  # says in words what gRPC would only write to stderr

    def read() -> Any:
        assert settings.key is not None
        assert settings.certificate is not None
        pair = (settings.key.read_bytes(), settings.certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair])

    def renewed() -> Any:
        try:
            return read()
        except OSError:
            return None  # what was read before goes on

    return grpc.dynamic_ssl_server_credentials(read(), renewed)
