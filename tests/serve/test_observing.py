"""Observers are told of each prediction, and hold up nobody: neither a request nor each other."""

import threading
import time

import numpy as np
import pytest

from fettle.monitor.log import PredictionLog, open_log
from fettle.serve._observing import Channel, Seen, channel_to

SEEN = Seen(
    "r1", 4_102_444_800 * 10**9, "m", "1", "ab", "only", "", "rest", (0.001, 0.002, 4), 0.004,
    {"x": np.zeros((1, 100))}, {"y": np.array([[0.0, 1.0]])},
)  # fmt: skip


class Noted:
    """Notes what it sees; waits for `gate` first, and fails where it should."""

    def __init__(self, gate=None, fails=()):
        self.gate, self.fails, self.ids, self.rows = gate, fails, [], []

    def seen(self, prediction, inputs, outputs):
        if self.gate:
            self.gate.wait(10)
        if prediction.id in self.fails:
            raise RuntimeError("an observer's own mistake")
        self.ids.append(prediction.id)
        self.rows.append((prediction, inputs, outputs))


def test_all_are_told_in_order_with_their_arrays():
    observer = Noted()
    channel = Channel(observer)
    for at in range(1000):
        channel.tell(SEEN._replace(id=str(at)))
    channel.close()
    assert observer.ids == [str(at) for at in range(1000)]
    prediction, inputs, outputs = observer.rows[7]
    assert (prediction.model, prediction.top, prediction.queue_us) == ("m", 1, 1000)
    assert inputs is SEEN.inputs
    assert outputs is SEEN.outputs
    assert (channel.dropped, channel.failed) == (0, 0)


def test_one_that_fails_misses_only_what_it_failed_on():
    observer = Noted(fails=("3",))
    channel = Channel(observer)
    for at in range(6):
        channel.tell(SEEN._replace(id=str(at)))
    channel.close()
    assert observer.ids == ["0", "1", "2", "4", "5"]
    assert channel.failed == 1


@pytest.mark.parametrize("bounds", [{"most": 10}, {"most_bytes": 10 * (100 + 2) * 8}])
def test_one_that_hangs_loses_what_is_too_much_and_holds_up_nobody(bounds):
    gate = threading.Event()
    slow, quick = Noted(gate), Noted()
    channels = [Channel(slow, **bounds), Channel(quick)]
    for channel in channels:
        channel.tell(SEEN)
    wait_for(lambda: quick.ids == ["r1"] and not channels[0]._waiting)
    for at in range(50):
        for channel in channels:
            channel.tell(SEEN._replace(id=str(at)))
    channels[1].close()
    assert len(quick.ids) == 51
    assert channels[0].dropped == 40
    gate.set()
    channels[0].close()
    assert slow.ids == ["r1", *[str(at) for at in range(10)]]


def test_one_that_wants_only_some_is_told_of_these():
    class Picky(Noted):
        def wants(self, seen):
            return seen.error is not None

    observer = Picky()
    channel = Channel(observer)
    channel.tell(SEEN)
    channel.tell(SEEN._replace(id="r2", error=OSError("x")))
    channel.close()
    assert observer.ids == ["r2"]


def test_the_log_is_its_own_channel_and_others_get_one(tmp_path):
    log = PredictionLog(tmp_path / "log.db")
    channels = [channel_to(log), channel_to(Noted())]
    assert channels[0] is log
    assert isinstance(channels[1], Channel)
    for channel in channels:
        channel.tell(SEEN)
        channel.close()
        assert (channel.dropped, channel.failed) == (0, 0)
    with open_log(tmp_path / "log.db") as read:
        assert [row.id for row in read.rows()] == ["r1"]


def test_after_it_is_closed_all_is_dropped():
    channel = Channel(Noted())
    channel.close()
    channel.tell(SEEN)
    assert channel.dropped == 1


def wait_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
