import json
import subprocess
import sys
from collections import namedtuple

import pytest

from fettle.cli import _doctor_checks as checks
from fettle.cli import _doctor_packages as packages
from fettle.cli import main
from fettle.cli._doctor_packages import conflicts, extras, fits, name_of, numbers
from fettle.cli._doctor_text import size, text
from fettle.core.machine import Details, Machine

MACHINE = Machine(
    "Some CPU", "x86_64", ("avx2",), 1,
    Details(cores=4, logical=8, sockets=1, cache_bytes=(("l1d", 32 << 10), ("l2", 1 << 20)),
            memory_bytes=8 << 30, memory_limit_bytes=1 << 30, cpu_quota=1.5,
            governor="powersave", turbo=True, virtual=False),
)  # fmt: skip
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these packages are installed: name to (version, requirements)."""

    def pretend(**known):
        known = {name.replace("_", "-"): what for name, what in known.items()}
        monkeypatch.setattr(packages, "_version", lambda n: known[n][0] if n in known else None)
        monkeypatch.setattr(packages, "_requires", lambda n: known[n][1] if n in known else [])

    return pretend


@pytest.mark.parametrize(
    ("found", "clauses", "expected"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.12.1", "==2.13.0", False),
        ("2.13", ">=2.9,<3", True),
        ("3.0.0", ">=2.9,<3", False),
        ("8.3.2", "!=8.3.*,>=5.3.0", False),
        ("8.4", "!=8.3.*,>=5.3.0", True),
        ("1.4.5", "~=1.4.2", True),
        ("1.5.0", "~=1.4.2", False),
        ("1.10", ">1.9", True),
        ("1.0", "==1", True),
        ("2", "<=1.9", False),
        ("0.22.2", "==0.*", True),
        ("anything", "", True),
    ],
)
def test_versions_against_packaging(found, clauses, expected):
    packaging = pytest.importorskip("packaging.specifiers")
    assert fits(found, clauses) is expected
    if found != "anything":
        assert packaging.SpecifierSet(clauses).contains(found) is expected


def test_reading_requirements():
    assert name_of("torch[x]>=2.1; python_version > '3'") == "torch"
    assert name_of("pillow (!=8.3.*,>=5.3.0)") == "pillow"
    assert numbers("2.13.0+cpu") == (2, 13)


def test_a_pair_that_does_not_fit_is_named_with_its_mend(installed):
    installed(torch=("2.12.0", []), torchvision=("0.28.0", ["torch (==2.13.0)", "numpy"]))
    (found,) = conflicts()
    assert found["what"] == "torchvision 0.28.0 needs torch==2.13.0, and 2.12.0 is installed"
    assert found["mend"] == "pip install 'torch==2.13.0'"


def test_rivals_of_one_name(installed):
    installed(onnxruntime=("1.31", []), onnxruntime_gpu=("1.31", []))
    (found,) = conflicts()
    assert found["mend"].startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")


def test_what_fits_or_is_conditional_is_no_conflict(installed):
    installed(torch=("2.13.0", []), timm=("1", ["torch>=2", "numpy<1; extra == 'old'"]))
    assert conflicts() == []


def test_extras(installed):
    asked = ["numpy", 'torch>=2; extra == "torch"', 'timm; extra == "vision"',
             'fettle[torch]; extra == "vision"', 'ruff; extra == "dev"']  # fmt: skip
    installed(fettle=("0.1", asked), torch=("2.13", []))
    found = extras()
    assert found.keys() == {"torch", "vision"}
    assert found["torch"] == {"installed": True, "missing": [], "install": None}
    assert found["vision"]["missing"] == ["timm"]
    assert found["vision"]["install"] == "pip install 'fettle[vision]'"


def test_a_governor_that_follows_the_load():
    assert "cpupower" in checks._governor(MACHINE).mend
    assert checks._governor(Machine("c", "x86_64", (), 1)) is None


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: object())
    assert "g++" in checks._compiler().mend
    monkeypatch.setattr(checks.shutil, "which", lambda name: "/bin/clang++")
    assert checks._compiler() is None


def test_a_cache_folder_that_can_not_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (found,) = checks._cache(tmp_path / "file")  # root may write anywhere, but not into a file
    assert "FETTLE_CACHE" in found.mend
    assert list(checks._cache(tmp_path / "made" / "later")) == []
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: Disk(9 << 30, 0, 1 << 30))
    assert "1.0 GiB are free" in next(checks._cache(tmp_path)).what


def test_little_shared_memory(tmp_path, monkeypatch):
    assert checks._shared_memory(tmp_path) is None
    (tmp_path / "dev/shm").mkdir(parents=True)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: Disk(64 << 20, 0, 64 << 20))
    assert "holds 64 MiB" in checks._shared_memory(tmp_path).what


@pytest.mark.parametrize(
    ("count", "shown"), [(9, "9 B"), (48 << 10, "48 KiB"), (3 << 29, "1.5 GiB"), (2 << 20, "2 MiB")]
)
def test_sizes(count, shown):
    assert size(count) == shown


def page(**changes):
    data = {
        "machine": MACHINE.to_json(),
        "precisions": {"int8": False, "bf16": False},
        "runtimes": {
            "onnxruntime": {"works": True, "fault": None},
            "openvino": {"works": False, "fault": "it is not here; to mend it: pip install it"},
        },
        "extras": {"text": {"installed": False, "missing": ["x"], "install": "pip install x"}},
        "conflicts": [],
        "problems": [],
        "interference": {"warning": None},
        "advice": [],
    }
    return text({**data, **changes})


def test_the_page():
    lines = page().splitlines()
    assert lines[:8] == [
        "processor      Some CPU",
        "instructions   avx2",
        "formats        int8 slow, bf16 slow",
        "layout         4 cores, 8 threads, 1 socket",
        "threads        1 usable (quota 1.5)",
        "caches         l1d 32 KiB, l2 1 MiB",
        "memory         8 GiB (limit 1 GiB)",
        "governor       powersave, turbo on",
    ]
    assert "  onnxruntime  works" in lines
    assert lines[lines.index("  openvino     ✗ it is not here") + 1].strip() == "pip install it"
    assert lines[-1] == "quiet: nothing disturbed timings just now"


def test_faults_stand_above_their_mends():
    lines = page(problems=[{"what": "it " * 60, "mend": "mend it"}]).splitlines()
    at = lines.index("    mend it")
    assert lines[at - 2].startswith("✗ it")
    assert all(len(line) <= 100 for line in lines)


def test_doctor_keeps_what_it_told_and_tells_more(capsys):
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.keys() >= {"machine", "versions", "runtimes", "missing", "advice"}
    assert said.keys() >= {"extras", "conflicts", "problems", "interference", "precisions"}
    assert said["machine"].keys() >= {"cpu", "isa", "threads", "cpu_quota", "cache_bytes"}


def test_nothing_works_is_exit_code_3(monkeypatch, capsys):
    from fettle.cli import doctor

    monkeypatch.setattr(doctor, "smoke", lambda runtime: "broken; to mend it: mend")
    assert main(["doctor"]) == 3
    assert "✗ broken" in capsys.readouterr().out


def test_quota_and_the_lack_of_vnni_are_advice(monkeypatch, capsys):
    from fettle.cli import doctor

    monkeypatch.setattr(doctor, "this_machine", lambda: MACHINE)
    main(["doctor"])
    said = capsys.readouterr().out
    assert "note: this processor has no VNNI" in said
    assert "may use 1.5 processors, so fettle uses 1 thread" in said


def test_the_folders_of_the_kernel_need_not_exist(tmp_path):
    code = "from fettle.cli._doctor_checks import problems; from fettle.core.machine import *;"
    code += f"from pathlib import Path; problems(this_machine(), Path({str(tmp_path)!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
