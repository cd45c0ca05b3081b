"""Where a server may listen, what is loopback, and certificates."""

import shutil
import ssl
import subprocess

import pytest
from tests.serve.http.conftest import parsed, received

from fettle.core.errors import InputError
from fettle.serve.http.security import Gate, is_loopback, tls_context
from fettle.serve.settings import Settings

TOKEN = "t" * 32


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "::1%lo"])
def test_loopback_is_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "", "::", "10.0.0.1", "example.com", "127.0.0.1.nip.io"]
)
def test_everything_else_is_not(host):
    assert not is_loopback(host)


def test_listening_to_strangers_expects_tokens_and_tls():
    with pytest.raises(InputError, match="--token-file and --certificate and --key"):
        Gate(Settings(host="0.0.0.0"))
    with pytest.raises(InputError, match="expects --certificate and --key;"):
        Gate(Settings(host="0.0.0.0", tokens=(TOKEN,)))
    Gate(Settings(host="0.0.0.0", insecure=True))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("`openssl`, which makes the certificate, is not on this machine")
    folder = tmp_path_factory.mktemp("tls")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    lock = ["-in", "key.pem", "-aes256", "-passout", "pass:secret", "-out", "locked.pem"]
    for words in (["req", "-x509", *curve, *names, *files], ["pkey", *lock]):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_is_spoken_and_a_handshake_has_its_time_too(serve, certificate):
    files = {"certificate": certificate / "cert.pem", "key": certificate / "key.pem"}
    run = serve(header_seconds=0.3, **files)
    assert run.server.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    silent = run.connect()
    with context.wrap_socket(run.connect(), server_hostname="localhost") as sock:
        sock.sendall(
            b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        (response,) = parsed(received(sock))
    assert response.status == 200
    assert received(silent) == b""  # closed, long before the test gives up
    silent.close()


def test_old_tls_is_refused(certificate):
    files = {"certificate": certificate / "cert.pem", "key": certificate / "key.pem"}
    assert tls_context(Settings(**files)).minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls_context(Settings()) is None


@pytest.mark.parametrize("key", ["cert.pem", "locked.pem", "missing.pem"])
def test_a_key_that_cannot_be_read_is_told(certificate, key):
    settings = Settings(certificate=certificate / "cert.pem", key=certificate / key)
    with pytest.raises(InputError, match=r"key in PEM were expected in .*cert\.pem"):
        tls_context(settings)
