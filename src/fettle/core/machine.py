"""What this machine is: processor, instruction sets, threads, versions of what is installed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fettle.core._cpu import Details, Processor, elsewhere, on_macos
from fettle.core._cpu_linux import on_linux
from fettle.core.cgroup import cpu_quota

_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "arm_dotprod"}
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
    """The processor, the instruction sets that matter to inference, and the usable threads.

    Attributes:
        cpu: the processor's name.
        arch: its family, as the system calls it: "x86_64", "aarch64", "arm64" …
        isa: what all of its cores have.
        threads: how many this process may keep busy; see `usable_threads`.
        details: cores, caches, memory and limits.
    """

    cpu: str
    arch: str
    isa: tuple[str, ...]
    threads: int
    details: Details = field(default_factory=Details)

    @property
    def has_vnni(self) -> bool:
        """Whether 8-bit products are summed in 32 bits at once (no 16-bit saturation)."""
        return bool(_DOT_PRODUCTS & set(self.isa))

    @property
    def has_bf16(self) -> bool:
        """Whether products of bfloat16 have instructions of their own."""
        return bool({"avx512_bf16", "amx_bf16", "arm_bf16"} & set(self.isa))

    @property
    def has_fp16(self) -> bool:
        """Whether products of float16 have instructions of their own."""
        return bool({"avx512_fp16", "amx_fp16", "arm_fp16"} & set(self.isa))

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
            **asdict(self.details),
            "cache_bytes": dict(self.details.cache_bytes),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Machine:
        """Return the machine that `to_json` described."""
        details = {name: found[name] for name in Details.__dataclass_fields__}
        caches = tuple(found["cache_bytes"].items())
        laid_out = Details(**{**details, "cache_bytes": caches})
        return cls(found["cpu"], found["arch"], tuple(found["isa"]), found["threads"], laid_out)


@cache
def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    found = _processor(platform.system())
    cpu = found.name or platform.processor() or platform.machine()
    return Machine(cpu, platform.machine(), found.isa, usable_threads(), found.details)


def usable_threads() -> int:
    """Return how many threads this process may keep busy.

    These are the processors that it may run on, and no more than the control group's quota has
    time for: a container limited to 1.5 processors gets 1, for with more it would be stopped in
    the middle of a run, which is slower and spoils every percentile.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    quota = cpu_quota()
    return processors if quota is None else max(1, min(processors, int(quota)))


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a result."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor(system: str) -> Processor:
    if system == "Linux":
        return on_linux()
    return on_macos() if system == "Darwin" else elsewhere()
