"""What a server of a bundle is installed from, and its image: non-root, on a read-only root."""

from __future__ import annotations

from importlib.metadata import version

from fettle.core.bundle import Bundle

_EXTRAS = {"openvino": "openvino", "pytorch": "torch", "tensorrt": "tensorrt"}
_PACKAGES = {"pytorch": "torch"}  # where the runtime isn't called as what it runs on
_BASE = "python:3.11-slim-bookworm"


def pins(bundle: Bundle, *extras: str) -> list[str]:
    """Return requirements: fettle with `extras` and the engine, as the bundle was proven with."""
    engine = bundle.manifest.runtime.partition("(")[0]
    wanted = ",".join([*extras, *([_EXTRAS[engine]] if engine in _EXTRAS else [])])
    packages = {"onnx", "numpy", _PACKAGES.get(engine, engine)}
    proven = bundle.manifest.versions
    fettle = _public(proven.get("fettle") or version("fettle"))
    return [
        f"fettle[{wanted}]=={fettle}",
        *(f"{package}=={_public(proven[package])}" for package in sorted(packages & proven.keys())),
    ]


def _public(text: str) -> str:
    """Return a version without what only its builder knows, such as `+cpu`."""
    return text.partition("+")[0]


def dockerfile(bundle: Bundle, name: str, port: int) -> str:
    """Return a Dockerfile that serves the bundle which lies beside it in `bundle/`.

    It listens on every address of the container without TLS, which is for whatever stands before
    it: it says so with `--insecure`. The versions are those that the bundle was proven with.
    """
    packages = " ".join(f"'{requirement}'" for requirement in pins(bundle, "serve"))
    return f"""FROM {_BASE}
RUN pip install --no-cache-dir {packages} \\
 && useradd --uid 10001 --no-create-home fettle
COPY --chown=root:root --chmod=a+rX bundle /bundle
USER 10001
ENV FETTLE_CACHE=/tmp/fettle PYTHONDONTWRITEBYTECODE=1
EXPOSE {port}
HEALTHCHECK CMD ["python", "-c", "import urllib.request as u; \\
u.urlopen('http://127.0.0.1:{port}/v2/health/ready', timeout=2)"]
ENTRYPOINT ["fettle", "serve", "{name}=/bundle", "--host", "0.0.0.0", "--port", "{port}", \\
"--insecure"]
"""
