import json
import os

import numpy as np
import pytest

from fettle.core import _cpu
from fettle.core import machine as module
from fettle.core._cpu import Details, elsewhere, from_numpy, from_sysctl, on_macos
from fettle.core._cpu_linux import isa_of, name_of, on_linux, parse_cpuinfo
from fettle.core.machine import Machine, this_machine, usable_threads, versions

# Written by hand in the form of /proc/cpuinfo, with the few flags that matter here.
ZEN4 = """processor\t: 0
model name\t: AMD EPYC 9R14
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 fma avx512f avx512_bf16 avx512_vnni hypervisor

processor\t: 1
model name\t: AMD EPYC 9R14
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 fma avx512f avx512_bf16 avx512_vnni hypervisor
"""
SKYLAKE = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz
flags\t\t: fpu fma avx2 avx512f avx512dq
"""
ALDER_LAKE = (
    "processor : 0\nmodel name : 12th Gen Intel(R) Core(TM) i7\nflags : avx2 fma avx_vnni\n"
)
SAPPHIRE = "processor : 0\nmodel name : Intel(R) Xeon(R)\nflags : avx512_fp16 amx_bf16 amx_int8\n"
SIERRA_FOREST = "processor : 0\nmodel name : Intel\nflags : avx2 avx_vnni_int8\n"
ARM = """processor\t: {}
BogoMIPS\t: 243.75
Features\t: fp asimd {}
CPU implementer\t: 0x41
CPU part\t: {}
"""
GRAVITON2 = ARM.format(0, "fphp asimdhp asimddp", "0xd0c")
GRAVITON3 = ARM.format(0, "asimdhp asimddp sve i8mm bf16", "0xd40")
PI4 = ARM.format(0, "evtstrm crc32 cpuid", "0xd08")
PI5 = ARM.format(0, "asimdhp asimddp", "0xd0b")
BIG_LITTLE = ARM.format(0, "asimddp", "0xd05") + "\n" + ARM.format(1, "asimddp i8mm", "0xd41")
APPLE = """machdep.cpu.brand_string: Apple M2
hw.physicalcpu: 8
hw.logicalcpu: 8
hw.packages: 1
hw.memsize: 17179869184
hw.l1dcachesize: 65536
hw.perflevel0.l1dcachesize: 131072
hw.perflevel0.l2cachesize: 16777216
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_SME: 0
kern.hv_vmm_present: 0
"""


def machine_of(text, arch):
    return Machine(name_of(parse_cpuinfo(text)), arch, isa_of(parse_cpuinfo(text)), 1)


@pytest.mark.parametrize(
    ("text", "cpu", "isa", "vnni"),
    [
        (ZEN4, "AMD EPYC 9R14", "avx2 fma avx512f avx512_vnni avx512_bf16", True),
        (SKYLAKE, "Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz", "avx2 fma avx512f", False),
        (ALDER_LAKE, "12th Gen Intel(R) Core(TM) i7", "avx2 fma avx_vnni", True),
        (SAPPHIRE, "Intel(R) Xeon(R)", "avx512_fp16 amx_int8 amx_bf16", True),
        (SIERRA_FOREST, "Intel", "avx2 avx_vnni_int8", True),
        (GRAVITON2, "Neoverse-N1", "arm_dotprod arm_fp16", True),
        (GRAVITON3, "Neoverse-V1", "arm_dotprod arm_i8mm arm_bf16 arm_fp16 arm_sve", True),
        (PI4, "Cortex-A72", "", False),
        (PI5, "Cortex-A76", "arm_dotprod arm_fp16", True),
        (BIG_LITTLE, "Cortex-A55 + Cortex-A78", "arm_dotprod", True),
        ("", "", "", False),
        (ARM.format(0, "", "0xfff"), "Arm 0x41 0xfff", "", False),
    ],
)
def test_processors_that_are_not_here(text, cpu, isa, vnni):
    found = machine_of(text, "any")
    assert found.cpu == cpu
    assert found.isa == tuple(isa.split())
    assert found.has_vnni is vnni


@pytest.mark.parametrize(
    ("text", "bf16", "fp16"),
    [(ZEN4, True, False), (SAPPHIRE, True, True), (GRAVITON2, False, True), (PI4, False, False)],
)
def test_half_precisions(text, bf16, fp16):
    found = machine_of(text, "any")
    assert (found.has_bf16, found.has_fp16) == (bf16, fp16)


def test_apple_by_sysctl():
    found = from_sysctl(APPLE)
    assert found.name == "Apple M2"
    assert found.isa == ("arm_dotprod", "arm_i8mm", "arm_bf16", "arm_fp16")
    assert found.details == Details(
        cores=8, logical=8, sockets=1, memory_bytes=1 << 34, virtual=False,
        cache_bytes=(("l1d", 131072), ("l2", 1 << 24)),
    )  # fmt: skip
    assert from_sysctl("").isa == ()


def test_macos_that_does_not_answer(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError("sysctl")

    monkeypatch.setattr(_cpu.subprocess, "run", missing)
    assert on_macos() == elsewhere()


def test_elsewhere_agrees_with_what_linux_says():
    found, linux = elsewhere(), on_linux()
    assert found.details.logical == os.cpu_count()
    assert set(found.isa) <= set(linux.isa)
    assert ("avx2" in found.isa) == ("avx2" in linux.isa)
    assert from_numpy({"AVX2": True, "AVX512_CLX": False, "FMA3": True}) == ("avx2", "fma")


def kernel(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_how_a_machine_is_laid_out(tmp_path):
    cpu = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": ZEN4,
        "proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/devices/system/node/node0/cpulist": "0-1\n",
        "sys/devices/system/node/possible": "0\n",
        f"{cpu}/intel_pstate/no_turbo": "1\n",
        "sys/class/dmi/id/sys_vendor": "Amazon EC2\n",
    }
    kinds = [("Data", 1, "32K"), ("Instruction", 1, "32K"), ("Unified", 2, "1M")]
    for i, (kind, level, size) in enumerate(kinds):
        folder = f"{cpu}/cpu0/cache/index{i}"
        files |= {f"{folder}/type": kind, f"{folder}/level": str(level), f"{folder}/size": size}
    for i in range(2):
        files[f"{cpu}/cpu{i}/topology/thread_siblings_list"] = "0-1\n"
        files[f"{cpu}/cpu{i}/cpufreq/scaling_governor"] = "powersave\n"
    assert on_linux(kernel(tmp_path, files)).details == Details(
        cores=1, logical=2, sockets=1, numa_nodes=1,
        cache_bytes=(("l1d", 1 << 15), ("l2", 1 << 20)), memory_bytes=1 << 24,
        cpu_quota=1.5, governor="powersave", turbo=False, virtual=True,
    )  # fmt: skip


def test_cpuinfo_alone_tells_cores_from_hyperthreads(tmp_path):
    found = on_linux(kernel(tmp_path, {"proc/cpuinfo": ZEN4})).details
    assert (found.cores, found.logical, found.sockets, found.virtual) == (1, 2, 1, True)


def test_boost_of_other_drivers_and_bare_metal(tmp_path):
    files = {"proc/cpuinfo": SKYLAKE, "sys/devices/system/cpu/cpufreq/boost": "1\n"}
    found = on_linux(kernel(tmp_path, files)).details
    assert (found.turbo, found.virtual) == (True, False)


def test_a_machine_that_does_not_tell(tmp_path, monkeypatch):
    assert on_linux(tmp_path).details == Details()
    monkeypatch.setattr(module, "on_linux", lambda: on_linux(tmp_path))
    found = this_machine.__wrapped__()
    assert found.cpu
    assert not found.has_vnni


@pytest.mark.parametrize(("system", "asked"), [("Darwin", "on_macos"), ("Windows", "elsewhere")])
def test_each_system_is_asked_its_own_way(system, asked, monkeypatch):
    monkeypatch.setattr(module.platform, "system", lambda: system)
    monkeypatch.setattr(module, asked, lambda: from_sysctl(APPLE))
    assert this_machine.__wrapped__().cpu == "Apple M2"


@pytest.mark.parametrize(("quota", "threads"), [(None, 64), (1.5, 1), (0.3, 1), (8, 8), (200, 64)])
def test_a_quota_limits_the_threads(monkeypatch, quota, threads):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    assert usable_threads() == threads


def test_threads_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr(module.os, "sched_getaffinity")
    monkeypatch.setattr(module, "cpu_quota", lambda: None)
    assert usable_threads() == os.cpu_count()


def test_x86():
    assert Machine("cpu", "AMD64", (), 1).is_x86
    assert not Machine("cpu", "arm64", (), 1).is_x86


def test_json():
    one = Machine("cpu", "x86_64", ("avx2",), 2, Details(cores=1, cache_bytes=(("l2", 9),)))
    found = json.loads(json.dumps(one.to_json()))
    four = {"cpu": "cpu", "arch": "x86_64", "isa": ["avx2"], "threads": 2}
    assert found == {**found, **four, "cores": 1, "cache_bytes": {"l2": 9}, "cpu_quota": None}


def test_versions_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "no-such-package"))
    assert versions() == {"numpy": np.__version__}
