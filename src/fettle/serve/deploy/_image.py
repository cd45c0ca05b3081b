"""The image of a server: non-root, on a root file system that may be read-only."""

from __future__ import annotations

from fettle.core.bundle import Bundle

_ENGINES = {"openvino": "openvino", "pytorch": "torch", "tensorrt": "tensorrt"}


def dockerfile(bundle: Bundle, name: str, port: int) -> str:
    """Return a Dockerfile that serves the bundle which lies beside it in `bundle/`.

    It listens on every address of the container without TLS, which is for whatever stands before
    it: it says so with `--insecure`. The versions are those that the bundle was proven with.
    """
    engine = bundle.manifest.runtime.partition("(")[0]
    extras = ",".join(["serve", *([_ENGINES[engine]] if engine in _ENGINES else [])])
    pins = [
        f"{package}=={version.partition('+')[0]}"
        for package, version in sorted(bundle.manifest.versions.items())
        if package in ("onnx", "numpy", engine)
    ]
    return f"""FROM python:3.11-slim
RUN pip install --no-cache-dir 'fettle[{extras}]' {" ".join(pins)} \\
 && useradd --uid 10001 --no-create-home fettle
COPY --chown=root:root --chmod=a+rX bundle /bundle
USER 10001
ENV FETTLE_CACHE=/tmp/fettle PYTHONDONTWRITEBYTECODE=1
EXPOSE {port}
HEALTHCHECK CMD ["python", "-c", "import urllib.request as u; \\
u.urlopen('http://127.0.0.1:{port}/v2/health/ready', timeout=2)"]
ENTRYPOINT ["fettle", "serve", "/bundle", "--name", "{name}", "--host", "0.0.0.0", \\
"--port", "{port}", "--insecure"]
"""
