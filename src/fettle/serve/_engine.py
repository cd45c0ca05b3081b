"""From a bundle to the session that it was proven with."""

from __future__ import annotations

from fettle.core.bundle import Bundle, Manifest
from fettle.core.errors import MissingError, ModelError
from fettle.core.hashing import fingerprint
from fettle.core.recipe import Recipe
from fettle.runtimes import Runtime, Session

_PLAIN = "onnxruntime"  # what runs a bundle that names no runtime


def sha_of(manifest: Manifest) -> str:
    """Return 16 hex digits that tell this bundle from any other."""
    return fingerprint(manifest.to_json())


def runtime_of(bundle: Bundle) -> Runtime:
    """Return the runtime that a bundle was proven on.

    Raises:
        MissingError: it isn't on this machine.
        ModelError: it runs no ONNX.
    """
    runtime = Recipe.parse(f"@ {bundle.manifest.runtime or _PLAIN}").runtime
    assert isinstance(runtime, Runtime)
    if runtime.takes != "onnx":
        raise ModelError(f"`{runtime}` runs no ONNX file: optimize for another runtime to serve it")
    reason = runtime.supports()
    if reason is not None:
        raise MissingError(f"the bundle in {bundle.path} runs on `{runtime.name()}`", reason)
    return runtime


def build_session(bundle: Bundle, threads: int = 0) -> Session:
    """Build the session with the runtime, options and lowering that the manifest records.

    Args:
        bundle: opened, so that its hashes are verified.
        threads: of the engine; 0 leaves them as the manifest has them.

    Raises:
        MissingError, ModelError: as `runtime_of`; or the engine refuses the model.
    """
    runtime = runtime_of(bundle)
    if threads:
        runtime = runtime.but(threads=threads)
    return runtime.build(bundle.model_path, bundle.manifest.lowering.get(runtime.name(), ()))
