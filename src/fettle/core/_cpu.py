"""What a processor can do and how it is laid out, on systems other than Linux too.

Everything that reads takes its text or a folder, so that processors that aren't here can be tried.
"""

from __future__ import annotations

import importlib
import platform
import subprocess
from dataclasses import dataclass

_SYSCTL = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
    "hw.optional.arm.FEAT_DotProd": "arm_dotprod",
    "hw.optional.arm.FEAT_I8MM": "arm_i8mm",
    "hw.optional.arm.FEAT_BF16": "arm_bf16",
    "hw.optional.arm.FEAT_FP16": "arm_fp16",
    "hw.optional.arm.FEAT_SME": "arm_sme",
}
# NumPy's dispatch features; a group's name stands for the newest instruction in it.
_NUMPY = {
    "AVX2": "avx2",
    "FMA3": "fma",
    "AVX512F": "avx512f",
    "AVX512_CLX": "avx512_vnni",
    "AVX512VNNI": "avx512_vnni",
    "AVX512BF16": "avx512_bf16",
    "AVX512FP16": "avx512_fp16",
    "AVX512_SPR": "avx512_fp16",
    "ASIMDDP": "arm_dotprod",
    "ASIMDHP": "arm_fp16",
    "SVE": "arm_sve",
}


@dataclass(frozen=True)
class Details:
    """How the machine is laid out; None where it doesn't tell.

    Attributes:
        cores: physical cores.
        logical: what the system calls processors: cores times their hyperthreads.
        sockets: processor packages.
        numa_nodes: parts of the memory with processors of their own.
        cache_bytes: of the first core, by "l1d", "l2" and "l3".
        memory_bytes: of the machine.
        memory_limit_bytes: what the control group allows.
        cpu_quota: processors' time that the control group allows.
        governor: of the clock rate, such as "performance".
        turbo: whether the clock may rise past its nominal rate.
        virtual: whether a hypervisor stands below.
    """

    cores: int | None = None
    logical: int | None = None
    sockets: int | None = None
    numa_nodes: int | None = None
    cache_bytes: tuple[tuple[str, int], ...] = ()
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    cpu_quota: float | None = None
    governor: str | None = None
    turbo: bool | None = None
    virtual: bool | None = None


@dataclass(frozen=True)
class Processor:
    """Its name, the instruction sets that matter to inference, and the details."""

    name: str
    isa: tuple[str, ...]
    details: Details


def from_sysctl(text: str) -> Processor:
    """Read what `sysctl -a` says on macOS."""
    pairs = (line.partition(": ") for line in text.splitlines())
    found = {key.strip(): value.strip() for key, _, value in pairs}

    def number(name: str) -> int | None:
        return int(found[name]) if found.get(name, "").isdigit() else None

    def performance(name: str) -> int | None:
        return number(f"hw.perflevel0.{name}") or number(f"hw.{name}")

    sizes = {"l1d": performance("l1dcachesize"), "l2": performance("l2cachesize"),
             "l3": performance("l3cachesize")}  # fmt: skip
    return Processor(
        found.get("machdep.cpu.brand_string", ""),
        tuple(dict.fromkeys(isa for key, isa in _SYSCTL.items() if found.get(key) == "1")),
        Details(
            cores=number("hw.physicalcpu"),
            logical=number("hw.logicalcpu"),
            sockets=number("hw.packages"),
            cache_bytes=tuple((name, size) for name, size in sizes.items() if size),
            memory_bytes=number("hw.memsize"),
            virtual={"1": True, "0": False}.get(found.get("kern.hv_vmm_present", "")),
        ),
    )


def on_macos() -> Processor:
    """Ask macOS; what it doesn't answer is left out."""
    try:
        command = ["/usr/sbin/sysctl", "-a"]
        done = subprocess.run(  # noqa: S603 - a fixed command of the system
            command, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return elsewhere()
    return from_sysctl(done.stdout)


def elsewhere() -> Processor:
    """Ask what NumPy and psutil found, as on Windows.

    AVX-VNNI and AMX, which NumPy doesn't look for, are missed there.
    """
    import psutil

    try:
        inner = importlib.import_module("numpy._core._multiarray_umath")
        features = dict(inner.__cpu_features__)
    except (ImportError, AttributeError):  # a private name: without it nothing is known
        features = {}
    details = Details(
        cores=psutil.cpu_count(logical=False),
        logical=psutil.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
    )
    return Processor(platform.processor(), from_numpy(features), details)


def from_numpy(features: dict[str, bool]) -> tuple[str, ...]:
    """Translate NumPy's names of what it found."""
    return tuple(dict.fromkeys(isa for name, isa in _NUMPY.items() if features.get(name)))
