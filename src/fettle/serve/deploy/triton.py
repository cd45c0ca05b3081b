"""A model repository for NVIDIA's Triton inference server.

Writes `NAME/config.pbtxt` and `NAME/1/model.onnx`, with dynamic batching up to the batch sizes that
the bundle's checklist proved, one warm-up request and, for a classifier, its labels. On a CPU the
graph is written as the bundle was proven, lowered for its engine: Triton's backend builds the
session itself and knows nothing of lowerings. On a GPU it is the symmetric master, which TensorRT
takes as it is, behind onnxruntime's execution accelerator.

Source: Triton's model configuration
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fettle.core.arrays import TensorSpec
from fettle.core.bundle import Bundle
from fettle.core.errors import BundleError
from fettle.core.files import write_text
from fettle.core.knobs import Choice, Range
from fettle.runtimes import write_lowered
from fettle.serve.deploy._deployment import Deployment, batch_sizes

_TYPES = {
    "bool": "TYPE_BOOL",
    **{f"uint{bits}": f"TYPE_UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"TYPE_INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"TYPE_FP{bits}" for bits in (16, 32, 64)},
    "bfloat16": "TYPE_BF16",
    "object": "TYPE_STRING",
    "str": "TYPE_STRING",
}
_IMAGE = "nvcr.io/nvidia/tritonserver:25.10-py3"
_LABELS = "labels.txt"


@dataclass(frozen=True, kw_only=True)
class Triton(Deployment):
    """A Triton model repository with `config.pbtxt`."""

    kind: Annotated[str, Choice("cpu", "gpu"), "where the instances run"] = "cpu"
    instances: Annotated[int, Range(1, 64), "sessions that run side by side"] = 1
    threads: Annotated[int, Range(0, 256), "of each session on a CPU; 0: all there are"] = 0
    delay_us: Annotated[int, Range(0, 1_000_000, "µs"), "to wait for a fuller batch"] = 0

    def fill(self, bundle: Bundle, name: str, folder: Path) -> tuple[str, ...]:
        """Write the repository; `tritonserver` serves it as it is."""
        home = folder / name
        runtime = bundle.manifest.runtime.partition("(")[0] or "onnxruntime"
        lowering = bundle.manifest.lowering.get(runtime, []) if self.kind == "cpu" else []
        write_lowered(bundle.model_path, lowering, home / "1" / "model.onnx")
        write_text(home / "config.pbtxt", self.config(bundle, name))
        if bundle.manifest.labels:
            write_text(home / _LABELS, "\n".join(bundle.manifest.labels) + "\n")
        gpus = "--gpus all " if self.kind == "gpu" else ""
        return (
            f"docker run --rm {gpus}-p 127.0.0.1:8000-8002:8000-8002 -v {{folder}}:/models:ro"
            f" {_IMAGE} tritonserver --model-repository=/models",
        )

    def config(self, bundle: Bundle, name: str) -> str:
        """Return the text of `config.pbtxt`.

        Raises:
            BundleError: inputs of a type that Triton doesn't know.
        """
        manifest, batched = bundle.manifest, _is_batched(bundle)
        sizes = (batch_sizes(bundle) or (1,)) if batched else ()
        inputs = [_tensor(spec, batched) for spec in manifest.inputs]
        labels = _LABELS if manifest.labels else ""
        outputs = [_tensor(spec, batched, labels) for spec in manifest.outputs]
        parts = [
            f'name: "{name}"',
            f'backend: "{self._backend(bundle)}"',
            'default_model_filename: "model.onnx"',
            f"max_batch_size: {max(sizes, default=0)}",
            f"input [\n{_joined(inputs)}\n]",
            f"output [\n{_joined(outputs)}\n]",
            f"instance_group [ {{ kind: KIND_{self.kind.upper()} count: {self.instances} }} ]",
            *self._batching(sizes),
            *self._tuning(),
            _warmup(manifest.inputs, batched),
        ]
        return "\n".join(parts) + "\n"

    def _backend(self, bundle: Bundle) -> str:
        on_openvino = self.kind == "cpu" and bundle.manifest.runtime.startswith("openvino")
        return "openvino" if on_openvino else "onnxruntime"

    def _batching(self, sizes: Sequence[int]) -> list[str]:
        if max(sizes, default=0) < 2:  # nothing to put together
            return []
        preferred = ", ".join(str(size) for size in sizes if size > 1)
        return [
            f"dynamic_batching {{ preferred_batch_size: [ {preferred} ]"
            f" max_queue_delay_microseconds: {self.delay_us} }}"
        ]

    def _tuning(self) -> list[str]:
        if self.kind == "gpu":
            return [
                "optimization { execution_accelerators { gpu_execution_accelerator [ { name:"
                ' "tensorrt" parameters { key: "trt_engine_cache_enable" value: "true" } } ] } }'
            ]
        if not self.threads:
            return []
        return [
            f'parameters {{ key: "{key}" value: {{ string_value: "{self.threads}" }} }}'
            for key in ("intra_op_thread_count", "INFERENCE_NUM_THREADS")
        ]


def _is_batched(bundle: Bundle) -> bool:
    return all(spec.shape[:1] == (-1,) for spec in bundle.manifest.inputs)


def _type(spec: TensorSpec) -> str:
    if spec.dtype not in _TYPES:
        raise BundleError(f"`{spec.name}` is of type {spec.dtype}, which Triton doesn't know")
    return _TYPES[spec.dtype]


def _tensor(spec: TensorSpec, batched: bool, labels: str = "") -> str:
    dims = ", ".join(map(str, spec.shape[batched:])) or "1"
    named = f' label_filename: "{labels}"' if labels else ""
    squeezed = " reshape { shape: [ ] }" if batched and not spec.shape[1:] else ""
    return f'  {{ name: "{spec.name}" data_type: {_type(spec)} dims: [ {dims} ]{squeezed}{named} }}'


def _joined(lines: Sequence[str]) -> str:
    return ",\n".join(lines)


def _warmup(inputs: Sequence[TensorSpec], batched: bool) -> str:
    """Return a warm-up of one request of zeros; free dimensions are 1."""
    given = " ".join(_zeros(spec, batched) for spec in inputs)
    return f'model_warmup [ {{ name: "zeros" batch_size: {int(batched)} {given} }} ]'


def _zeros(spec: TensorSpec, batched: bool) -> str:
    dims = ", ".join(str(max(d, 1)) for d in spec.shape[batched:]) or "1"
    value = f"data_type: {_type(spec)} dims: [ {dims} ] zero_data: true"
    return f'inputs {{ key: "{spec.name}" value: {{ {value} }} }}'
