import json
import os

import numpy as np
import pytest

from fettle.core import machine as module
from fettle.core.machine import Machine, this_machine, usable_threads, versions

INTEL = "model name\t: Some Xeon\nflags\t\t: fpu avx2 fma avx512f avx512_vnni\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n\n"


@pytest.fixture
def described(tmp_path, monkeypatch):
    def describe(text, arch):
        (tmp_path / "cpuinfo").write_text(text)
        real = module.Path

        def path(name):
            return real(tmp_path / "cpuinfo") if str(name) == "/proc/cpuinfo" else real(name)

        monkeypatch.setattr(module, "Path", path)
        monkeypatch.setattr(module.platform, "machine", lambda: arch)
        return this_machine.__wrapped__()

    return describe


def test_reads_an_x86_processor(described):
    found = described(INTEL, "x86_64")
    assert found.cpu == "Some Xeon"
    assert found.isa == ("avx2", "fma", "avx512f", "avx512_vnni")
    assert found.is_x86
    assert found.has_vnni


def test_reads_an_arm_processor(described):
    found = described(ARM, "aarch64")
    assert set(found.isa) == {"arm_dotprod", "arm_i8mm", "arm_bf16"}
    assert not found.is_x86
    assert found.has_vnni


def test_a_machine_that_does_not_tell(described):
    found = described("", "riscv64")
    assert found.isa == ()
    assert not found.has_vnni
    assert found.cpu


@pytest.mark.parametrize(
    ("isa", "expected"),
    [(("avx2",), False), (("avx_vnni",), True), (("amx_int8",), True), (("avx512f",), False)],
)
def test_vnni(isa, expected):
    assert Machine("cpu", "x86_64", isa, 1).has_vnni is expected


def test_usable_threads_are_those_of_this_process():
    assert usable_threads() == len(os.sched_getaffinity(0))


def test_json():
    one = Machine("cpu", "x86_64", ("avx2",), 2)
    assert json.loads(json.dumps(one.to_json())) == {
        "cpu": "cpu",
        "arch": "x86_64",
        "isa": ["avx2"],
        "threads": 2,
    }


def test_versions_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "no-such-package"))
    assert versions() == {"numpy": np.__version__}
