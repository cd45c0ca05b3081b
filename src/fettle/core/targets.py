"""What a target means: the engines that may run the artifact, on which its speed is measured.

    cpu                     onnxruntime and openvino, whichever are here; PyTorch on the CPU beside
    tensorrt                NVIDIA's TensorRT on the first GPU; PyTorch on that GPU beside
    cuda                    refused, with the reason: what a study makes is ONNX, and TensorRT alone
                            runs that on a GPU; PyTorch runs torch modules, so it is the reference
    NAME,NAME               these runtimes, each of which has to be here

"Beside" says what the untouched model is measured on as the reference; it never wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from fettle.core.errors import InputError, MissingError
from fettle.core.shelf import RUNTIMES

TARGETS = {"cpu": ("onnxruntime", "openvino"), "tensorrt": ("tensorrt",)}
_MEND = "; to mend it: "
_NO_CUDA = (
    "`--target cuda` expects an engine that runs ONNX, which is what a study makes, on a GPU, and"
    " TensorRT alone is one here: give `--target tensorrt`. PyTorch on the GPU is measured beside"
    " it; alone, `fettle bench MODEL --runtime \"pytorch(device='cuda', mode='cuda_graphs')\"`"
)


def targets(text: str) -> tuple[str, ...]:
    """Return the names of the runtimes that a target (`--target` on the command line) means.

    Raises:
        UnknownName: no such runtime.
        InputError: nothing was named, or what can't run ONNX.
        MissingError: a package or a device that it needs is not here.
    """
    if text == "cuda":
        _need(["pytorch"], device="cuda")
        raise InputError(_NO_CUDA)
    names = TARGETS.get(text) or tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        known = ", ".join(TARGETS)
        raise InputError(f"`--target` expects {known} or names of runtimes, got nothing")
    for name in names:
        if getattr(RUNTIMES.load(name), "takes", "onnx") != "onnx":
            raise InputError(
                f"`{name}` can't run what a study makes, which is ONNX; give another target, such"
                " as cpu or onnxruntime (PyTorch is always measured beside them)"
            )
    _need(names, every=text not in TARGETS)
    return tuple(dict.fromkeys(names))


def _need(names: Sequence[str], every: bool = True, **knobs: str) -> None:
    """Refuse a target of which not every runtime is here, or not even one."""
    reasons = {name: RUNTIMES.make(name, **knobs).supports() for name in names}  # type: ignore[attr-defined]
    missing = {name: reason for name, reason in reasons.items() if reason}
    if missing and (every or len(missing) == len(reasons)):
        name, reason = next(iter(missing.items()))
        what, _, mend = reason.rpartition(_MEND)
        raise MissingError(what or f"the runtime `{name}`", mend)
