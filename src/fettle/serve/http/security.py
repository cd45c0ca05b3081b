"""Who may ask: bearer tokens, TLS, and what a browser may be made to ask on someone's behalf.

On loopback all is open unless tokens are given. On any other address inference expects a token and
TLS, unless `--insecure` says that both are provided for elsewhere; control (load, unload, metrics)
is closed there without a control token, whatever else is said.
"""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from collections.abc import Mapping, Sequence

from fettle.core.errors import InputError
from fettle.serve.errors import Forbidden, Unauthorized
from fettle.serve.settings import Settings

_LOCAL_NAMES = frozenset({"localhost", "ip6-localhost"})
_BEARER = "bearer"


class Gate:
    """Lets a request in by its headers.

    Raises:
        InputError: settings that would leave a server open to strangers.
    """

    def __init__(self, settings: Settings) -> None:
        refuse_open(settings)
        self._local = is_loopback(settings.host)
        self._control = _encoded(settings.control_tokens)
        # who may control a model may ask it too
        self._all = [*_encoded(settings.tokens), *self._control] if settings.tokens else []

    def infer(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise Unauthorized, unless the caller may ask for predictions."""
        if self._all:
            _expect(self._all, headers, "a token")

    def control(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise Unauthorized or Forbidden, unless the caller may load, unload and look inside."""
        if self._control:
            _expect(self._control, headers, "a control token")
        elif not self._local:
            raise Forbidden(
                "loading, unloading and metrics are switched off: start the server with"
                " --control-token-file to reach them from other machines"
            )
        else:
            _refuse_web_page(headers)


def refuse_open(settings: Settings) -> None:
    """Raise InputError if a server would listen beyond loopback without tokens or without TLS."""
    if is_loopback(settings.host) or settings.insecure:
        return
    missing = [
        option
        for option, given in (
            ("--token-file", settings.tokens),
            ("--certificate and --key", settings.tls),
        )
        if not given
    ]
    if missing:
        raise InputError(
            f"listening on {settings.host}, beyond this machine, expects {' and '.join(missing)};"
            " give them, listen on 127.0.0.1, or say --insecure where something before this server"
            " sees to both"
        )


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches `host`."""
    name = host.strip("[]").lower()
    if name in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what TLS needs, from version 1.2 on; None without a certificate.

    Raises:
        InputError: the certificate or its key can't be read, or don't belong together.
    """
    if not settings.tls:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, settings)
    return context


def load_certificate(context: ssl.SSLContext | None, settings: Settings) -> None:
    """Read the certificate and its key, for connections from now on.

    Raises:
        InputError: they can't be read, or don't belong together.
    """
    if context is None or settings.certificate is None or settings.key is None:
        return
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_refuse_password)
    except (OSError, ValueError) as error:
        raise InputError(
            f"a certificate and its key in PEM were expected in {settings.certificate} and"
            f" {settings.key}: {error}"
        ) from error


def _refuse_password() -> str:
    raise ValueError("the key is locked with a password; unlock it: `openssl pkey -in KEY`")


def _encoded(tokens: Sequence[str]) -> list[bytes]:
    return [token.encode() for token in tokens]


def _expect(tokens: Sequence[bytes], headers: Mapping[bytes, bytes], what: str) -> None:
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    given = given.strip()
    # all are compared, each in constant time: how long it takes tells nothing
    matches = [hmac.compare_digest(given, token) for token in tokens]
    if scheme.lower() != _BEARER.encode() or not any(matches):
        raise Unauthorized(f"{what} was expected: send the header `Authorization: Bearer TOKEN`")


def _refuse_web_page(headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden where a browser asks for a page of elsewhere.

    Any web page may post to a server on its reader's own machine, and by a name of its own that
    it points at 127.0.0.1 read the answer too.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin")
    foreign = origin is not None and origin.decode("latin-1").partition("://")[2] != host
    if foreign or headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
        raise Forbidden("a web page of elsewhere may not control this server")
    if host and not is_loopback(_without_port(host)):
        raise Forbidden(
            "a name of this machine such as localhost was expected in the header `Host`, got"
            " another: use it, or start the server with --control-token-file"
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
