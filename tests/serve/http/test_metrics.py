"""What `/metrics` gathers beside the models' own numbers."""

from types import SimpleNamespace

from fettle.monitor.capsule import Capsules
from fettle.monitor.metrics import exposition
from fettle.serve._observing import Channel
from fettle.serve.http.metrics import channel_families, worker_families


def test_lost_workers_are_told_by_model_and_part():
    told = exposition(
        worker_families({"only": {("m", "2"): 3}, "canary": {}, "shadow": {("m", "1"): 0}})
    )
    assert 'fettle_workers_lost_total{model="m",version="2",part="only"} 3' in told
    assert 'fettle_workers_lost_total{model="m",version="1",part="shadow"} 0' in told
    assert "canary" not in told
    assert exposition(worker_families({"only": {}})) == ""


def test_what_observers_missed_is_told_by_their_names(tmp_path):
    capsules = Capsules(tmp_path)
    capsules.counts["kept"] += 2
    channel = Channel(capsules)
    channel.dropped = 5
    own = type("Shadow", (SimpleNamespace,), {})(dropped=1, failed=4)
    told = exposition(channel_families([channel, own]))
    channel.close()
    assert 'fettle_observer_dropped_total{observer="Capsules"} 5' in told
    assert 'fettle_observer_failed_total{observer="Shadow"} 4' in told
    assert 'fettle_capsules_total{outcome="kept"} 2' in told
