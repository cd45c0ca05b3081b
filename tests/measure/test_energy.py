"""Against a folder laid out as the kernel does and a fake NVML: this machine has neither."""

import json
import sys
from types import SimpleNamespace

import pytest

from fettle.core.errors import InputError
from fettle.measure.energy import energy, energy_per_example, read, why_not

RANGE = 262_143_328_850  # μJ, an Intel server's


def zone(root, place, name, microjoules):
    folder = root / f"intel-rapl:{place}"
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")


@pytest.fixture
def rapl(tmp_path):
    """Two packages with what is inside of them, one memory, and the platform as a whole."""
    zone(tmp_path, "0", "package-0", 1_000_000)
    zone(tmp_path, "0:0", "core", 400_000)
    zone(tmp_path, "0:1", "dram", 5_000_000)
    zone(tmp_path, "1", "package-1", RANGE - 1_000_000)
    zone(tmp_path, "2", "psys", 9_000_000)
    return tmp_path


def test_packages_and_memory_are_added_and_nothing_twice(rapl):
    with energy(rapl) as found:
        zone(rapl, "0", "package-0", 3_500_000)
        zone(rapl, "0:0", "core", 2_000_000)
        zone(rapl, "0:1", "dram", 5_500_000)
        zone(rapl, "2", "psys", 99_000_000)
    assert found.parts == pytest.approx({"package-0": 2.5, "dram-0": 0.5, "package-1": 0.0})
    assert found.joules == pytest.approx(3.0)
    assert found.watts == pytest.approx(3.0 / found.seconds)
    assert found.reason is None
    assert json.loads(json.dumps(found.to_json()))["joules"] == pytest.approx(3.0)


def test_a_counter_that_wrapped_around(rapl):
    with energy(rapl) as found:
        zone(rapl, "1", "package-1", 500_000)
    assert found.parts["package-1"] == pytest.approx(1.5)
    assert found.joules == pytest.approx(1.5)


def test_a_block_that_raises_is_counted(rapl):
    with pytest.raises(ZeroDivisionError), energy(rapl) as found:
        1 / 0  # noqa: B018
    assert found.joules == 0.0


def test_a_machine_without_counters(tmp_path):
    with energy(tmp_path) as found:
        pass
    assert found.joules is None
    assert found.watts is None
    assert "modprobe" in found.reason


def test_counters_that_may_not_be_read(rapl):
    for path in rapl.glob("*/energy_uj"):
        path.unlink()  # what root alone may read can't be laid out for root
    assert read(rapl) == {}
    assert "sudo chmod" in why_not(rapl)


def test_joules_per_example(rapl):
    runs = []

    def run():
        runs.append(1)
        zone(rapl, "0", "package-0", 1_000_000 + 800_000 * len(runs))

    joules, reason = energy_per_example(run, batch=4, seconds=0.0, powercap=rapl)
    assert (joules, reason, len(runs)) == (pytest.approx(0.2), None, 1)
    joules, _ = energy_per_example(run, batch=4, seconds=0.01, powercap=rapl)
    assert joules == pytest.approx(0.2)


def test_nothing_runs_where_nothing_tells(tmp_path):
    joules, reason = energy_per_example(lambda: 1 / 0, powercap=tmp_path)
    assert joules is None
    assert reason == why_not(tmp_path)


def test_a_batch_of_none(rapl):
    with pytest.raises(InputError, match="at least 1, got 0"):
        energy_per_example(lambda: None, batch=0, powercap=rapl)


def test_gpus_are_counted(tmp_path, monkeypatch):
    counts = iter([5000, 7000])

    class NVMLError(Exception):
        pass

    def total(handle):
        if handle == 1:
            raise NVMLError
        return next(counts)

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(
        nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda i: i, nvmlDeviceGetTotalEnergyConsumption=total,
        NVMLError=NVMLError,
    ))  # fmt: skip
    with energy(tmp_path) as found:
        pass
    assert found.parts == {"gpu-0": 2.0}
    assert found.joules == 2.0
