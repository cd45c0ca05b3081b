"""What this machine is: processor, instruction sets, threads, versions of what is installed."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_FLAGS = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimddp": "arm_dotprod",
    "i8mm": "arm_i8mm",
    "bf16": "arm_bf16",
}
PACKAGES = (
    "fettle",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "tokenizers",
    "torchao",
    "torch-pruning",
    "lightning-fabric",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "numpy",
    "scipy",
)


@dataclass(frozen=True)
class Machine:
    """The processor, the instruction sets that matter to inference, and the usable threads."""

    cpu: str
    arch: str
    isa: tuple[str, ...]
    threads: int

    @property
    def has_vnni(self) -> bool:
        """Whether 8-bit products are summed in 32 bits at once (no 16-bit saturation)."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8", "arm_dotprod"} & set(self.isa))

    @property
    def is_x86(self) -> bool:
        """Whether this is an x86 processor."""
        return self.arch in ("x86_64", "AMD64", "i686")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "cpu": self.cpu,
            "arch": self.arch,
            "isa": list(self.isa),
            "threads": self.threads,
        }


@cache
def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    isa = tuple(name for flag, name in _FLAGS.items() if flag in flags)
    cpu = info.get("model name") or platform.processor() or platform.machine()
    return Machine(cpu, platform.machine(), isa, usable_threads())


def usable_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a result."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
