import json
import subprocess
import sys
from dataclasses import replace

import pytest

from fettle.measure import _interference as room
from fettle.measure._interference import Interference, Reading, between, read, watched

CALM = Reading(at=10.0, busy=5.0, own=4.0, steal=0.0, speed=2000.0, throttled=3, swapped=7,
               stalled=1.0, heat=2)  # fmt: skip
LATER = replace(CALM, at=12.0, busy=6.9, own=5.88)
BURN = """
import time
while time.process_time() < 0.5: pass
print("burnt", flush=True)
input()
"""


@pytest.fixture
def two_processors(monkeypatch):
    monkeypatch.setattr(room, "_usable", lambda: {0, 1})
    monkeypatch.setattr(room, "_frequency", lambda: 2000.0)


@pytest.mark.usefixtures("two_processors")
def test_a_quiet_run():
    found = between(CALM, LATER)
    assert found.seconds == pytest.approx(2.0)
    assert found.other_load == pytest.approx(0.01)
    assert found.warning is None
    assert json.loads(json.dumps(found.to_json()))["warning"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"busy": 7.9}, "other processes kept 0.5 of 2 processors busy"),
        ({"steal": 0.1}, "the hypervisor gave 5% of the processor time to others"),
        ({"speed": 1600.0}, "the processor's speed changed by -20% (frequency)"),
        ({"speed": 2400.0}, "the processor's speed changed by +20% (frequency)"),
        ({"throttled": 8}, "the container was stopped at its CPU quota 5 times"),
        ({"heat": 3}, "cores were slowed down for heat 1 times"),
        ({"swapped": 8}, "1 pages were swapped"),
        ({"stalled": 1.1}, "processes waited for memory 5% of the time"),
    ],
)
@pytest.mark.usefixtures("two_processors")
def test_what_disturbs_is_named(change, words):
    assert between(CALM, replace(LATER, **change)).warning == words


@pytest.mark.usefixtures("two_processors")
def test_several_are_all_named():
    warning = between(CALM, replace(LATER, busy=7.9, throttled=4)).warning
    assert "0.5 of 2" in warning
    assert "1 times" in warning


@pytest.mark.usefixtures("two_processors")
def test_the_loop_is_believed_less_than_the_frequency(monkeypatch):
    monkeypatch.setattr(room, "_frequency", lambda: None)
    assert between(CALM, replace(LATER, speed=2300.0)).warning is None
    assert "(loop)" in between(CALM, replace(LATER, speed=1000.0)).warning


@pytest.mark.usefixtures("two_processors")
def test_a_run_too_short_to_judge_by_the_load():
    assert between(CALM, replace(LATER, at=10.1, busy=5.3, own=4.1)).warning is None


@pytest.mark.usefixtures("two_processors")
def test_a_large_machine_bears_more(monkeypatch):
    monkeypatch.setattr(room, "_usable", lambda: set(range(64)))
    assert between(CALM, replace(LATER, busy=9.0)).warning is None
    assert "4.0 of 64" in between(CALM, replace(LATER, busy=14.88)).warning


@pytest.mark.usefixtures("two_processors")
def test_a_machine_that_tells_nothing():
    silent = Reading(at=1.0, busy=1.0, own=1.0)
    found = between(silent, replace(silent, at=3.0))
    assert (found.steal, found.speed_change, found.throttled_periods) == (None, None, None)
    assert found.warning is None


def test_counters_of_this_machine_never_run_backwards():
    before, after = read(), read()
    assert after.at > before.at
    assert after.busy >= before.busy
    assert after.own >= before.own
    assert after.speed > 0


def test_another_process_is_seen_and_this_one_is_not():
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=-1, stdout=-1, text=True) as other:
        with watched() as found:
            other.stdout.readline()
        other.communicate("\n")
    assert found.other_load * found.seconds > 0.4


def test_the_record_is_filled_in_when_the_block_raises():
    with pytest.raises(ZeroDivisionError), watched() as found:
        1 / 0  # noqa: B018
    assert found.seconds > 0


def test_an_unfilled_record_warns_of_nothing():
    assert Interference().warning is None


@pytest.mark.usefixtures("two_processors")
def test_files_of_the_kernel(tmp_path):
    files = {
        "proc/vmstat": "nr_free_pages 5\npswpin 3\npswpout 4\n",
        "proc/pressure/memory": "some avg10=0.00 avg60=0.00 total=2500000\nfull total=1\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert room._swapped(tmp_path) == 7
    assert room._stalled(tmp_path) == 2.5
    assert room._heat(tmp_path) == 5


def test_files_that_are_not_there(tmp_path):
    assert room._swapped(tmp_path) is None
    assert room._stalled(tmp_path) is None
    assert room._heat(tmp_path) is None


def test_frequency_is_the_mean_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_usable", lambda: {0, 1})
    assert room._frequency(tmp_path) is None
    for core, khz in enumerate((2000000, 3000000)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    assert room._frequency(tmp_path) == 2500.0
