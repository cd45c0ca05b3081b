"""What Linux tells of its processors: `/proc/cpuinfo` and `/sys/devices/system`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fettle.core._cpu import Details, Processor
from fettle.core.cgroup import ROOT, cpu_quota, memory_limit, text_of

_X86 = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx_vnni_int8": "avx_vnni_int8",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "amx_fp16": "amx_fp16",
}
_ARM = {
    "asimddp": "arm_dotprod",
    "i8mm": "arm_i8mm",
    "bf16": "arm_bf16",
    "asimdhp": "arm_fp16",
    "sve": "arm_sve",
    "sve2": "arm_sve2",
    "sme": "arm_sme",
}
# implementer and part of Arm's identification register (MIDR_EL1)
_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd84"): "Neoverse-V3",
    ("0xc0", "0xac3"): "Ampere-1",
}
_HYPERVISORS = ("qemu", "amazon ec2", "google", "microsoft", "vmware", "xen", "innotek", "kvm")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def on_linux(root: Path = ROOT) -> Processor:
    """Read the files below `root`."""
    blocks = parse_cpuinfo(text_of(root / "proc/cpuinfo"))
    return Processor(name_of(blocks), isa_of(blocks), _details(root, blocks))


def parse_cpuinfo(text: str) -> list[dict[str, str]]:
    """Return the fields of each block of `/proc/cpuinfo`; one block is one processor."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        blocks.append({key.strip(): value.strip() for key, value in pairs})
    return [block for block in blocks if block]


def isa_of(blocks: list[dict[str, str]]) -> tuple[str, ...]:
    """Return what every core has: a thread may come to run on any of them."""
    every = [{*b.get("flags", "").split(), *b.get("Features", "").split()} for b in blocks]
    flags = set.intersection(*(found for found in every if found)) if any(every) else set()
    table = _ARM if any("Features" in block for block in blocks) else _X86
    return tuple(name for flag, name in table.items() if flag in flags)


def name_of(blocks: list[dict[str, str]]) -> str:
    """Return the processor's name; kinds of cores that differ are joined by a plus."""
    named = [block["model name"] for block in blocks if block.get("model name")]
    parts = [(b["CPU implementer"], b["CPU part"]) for b in blocks if "CPU part" in b]
    arm = [_PARTS.get(part, "Arm {} {}".format(*part)) for part in parts]
    return " + ".join(dict.fromkeys(named or arm))


def _details(root: Path, blocks: list[dict[str, str]]) -> Details:
    processors = [block for block in blocks if "processor" in block]
    cpus = root / "sys/devices/system/cpu"
    threads = _distinct(cpus, "topology/thread_siblings_list")
    return Details(
        cores=len(threads) or _cores(processors) or None,
        logical=len(processors) or None,
        sockets=_sockets(cpus, processors),
        numa_nodes=len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        cache_bytes=tuple(_caches(cpus / "cpu0/cache")),
        memory_bytes=_memory(text_of(root / "proc/meminfo")),
        memory_limit_bytes=memory_limit(root),
        cpu_quota=cpu_quota(root),
        governor=", ".join(sorted(_distinct(cpus, "cpufreq/scaling_governor"))) or None,
        turbo=_turbo(cpus),
        virtual=_virtual(root, blocks),
    )


def _distinct(cpus: Path, name: str) -> set[str]:
    return {text for cpu in cpus.glob("cpu[0-9]*") if (text := text_of(cpu / name))}


def _cores(processors: list[dict[str, str]]) -> int:
    if any("core id" not in block for block in processors):
        return len(processors)  # Arm's have no hyperthreads worth the name
    return len({(block.get("physical id"), block["core id"]) for block in processors})


def _sockets(cpus: Path, processors: list[dict[str, str]]) -> int | None:
    told = {block["physical id"] for block in processors if "physical id" in block}
    found = told or _distinct(cpus, "topology/physical_package_id") - {"-1"}
    return len(found) or None


def _caches(folder: Path) -> Iterator[tuple[str, int]]:
    for index in sorted(folder.glob("index[0-9]*")):
        kind, level = text_of(index / "type"), text_of(index / "level")
        size = re.fullmatch(r"(\d+)([KMG])", text_of(index / "size"))
        if size and kind in ("Data", "Unified"):
            name = f"l{level}d" if level == "1" else f"l{level}"
            yield name, int(size[1]) * _UNITS[size[2]]


def _memory(text: str) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _turbo(cpus: Path) -> bool | None:
    off, on = text_of(cpus / "intel_pstate/no_turbo"), text_of(cpus / "cpufreq/boost")
    return off == "0" if off else on == "1" if on else None


def _virtual(root: Path, blocks: list[dict[str, str]]) -> bool | None:
    if any("hypervisor" in block.get("flags", "").split() for block in blocks):
        return True
    vendor = text_of(root / "sys/class/dmi/id/sys_vendor").lower()
    if any(name in vendor for name in _HYPERVISORS) or text_of(root / "sys/hypervisor/type"):
        return True
    return False if vendor or any("flags" in block for block in blocks) else None
