"""Metrics say what was counted, under Triton's names, in the format that Prometheus reads."""

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fettle.monitor import metrics
from fettle.monitor._exposition import Family, Sample
from fettle.monitor.answered import Answered, predictions
from fettle.monitor.log import Counts
from fettle.monitor.metrics import Latencies, ModelNumbers, exposition, model_families

TRITON = {
    "nv_inference_request_success": 10,
    "nv_inference_request_failure": 3,
    "nv_inference_count": 25,
    "nv_inference_exec_count": 7,
    "nv_inference_request_duration_us": 90,
    "nv_inference_queue_duration_us": 10,
    "nv_inference_compute_input_duration_us": 0,
    "nv_inference_compute_infer_duration_us": 70,
    "nv_inference_compute_output_duration_us": 0,
    "nv_inference_pending_request_count": 2,
}
KINDS = dict.fromkeys(TRITON, "counter") | {"nv_inference_pending_request_count": "gauge"}


def spent(count, ns=0):
    return {"count": count, "ns": ns}


def numbers(name="m", version="1", **more):
    """What a model that was asked 13 times counted, as the statistics extension tells it."""
    stats = {
        "name": name, "version": version, "inference_count": 25, "execution_count": 7,
        "inference_stats": {
            "success": spent(10, 90_500), "fail": spent(3, 9), "queue": spent(10, 10_999),
            "compute_input": spent(10), "compute_infer": spent(10, 70_001),
            "compute_output": spent(10),
        },
        "batch_stats": [
            {"batch_size": size, "compute_infer": spent(count)} for size, count in ((1, 4), (8, 3))
        ],
    }  # fmt: skip
    return ModelNumbers(stats, **{"pending": 2, **more})


def read(families):
    """Parse what is exposed, by prometheus-client: name to what it holds."""
    return {family.name: family for family in text_string_to_metric_families(exposition(families))}


def samples(family):
    return {(s.name, *sorted(s.labels.items())): s.value for s in family.samples}


@pytest.mark.parametrize(("name", "value"), TRITON.items())
def test_triton_s_names_and_numbers(name, value):
    text = exposition(model_families([numbers()]))
    reason = ',reason="OTHER"' if name.endswith("failure") else ""
    assert f'\n{name}{{model="m",version="1"{reason}}} {value}\n' in text
    assert f"# TYPE {name} {KINDS[name]}\n" in text
    assert f"# HELP {name} " in text


def test_each_model_and_version_has_its_own_samples():
    found = read(model_families([numbers(), numbers(version="2"), numbers("n", ready=False)]))
    ready = samples(found["fettle_model_ready"])
    assert ready == {
        ("fettle_model_ready", ("model", "m"), ("version", "1")): 1,
        ("fettle_model_ready", ("model", "m"), ("version", "2")): 1,
        ("fettle_model_ready", ("model", "n"), ("version", "1")): 0,
    }


def test_failures_by_reason():
    model = numbers(failures={"REJECTED": 2, "BACKEND": 1})
    found = samples(read(model_families([model]))["nv_inference_request_failure"])
    assert sorted(found.values()) == [1, 2]
    assert {dict(key[1:])["reason"] for key in found} == {"REJECTED", "BACKEND"}


def test_batches_are_counted_by_their_rows():
    found = samples(read(model_families([numbers()]))["fettle_batch_size"])
    name = "fettle_batch_size"
    model = (("model", "m"), ("version", "1"))
    assert found[(f"{name}_count", *model)] == 7
    assert found[(f"{name}_sum", *model)] == 4 * 1 + 3 * 8
    assert found[(f"{name}_bucket", ("le", "4"), *model)] == 4
    assert found[(f"{name}_bucket", ("le", "8"), *model)] == 7


def test_histograms_of_latency_agree_with_numpy(make):
    seconds = np.random.default_rng(0).lognormal(-5, 2, size=500)
    latencies = Latencies()
    for at, each in enumerate(seconds):
        prediction = make(at, total_us=int(each * 1e6), queue_us=100, route="ab"[at % 2])
        latencies.seen(prediction, {}, None)
    found = samples(read(latencies.families())["fettle_request_duration_seconds"])
    told = (np.int64(seconds * 1e6) / 1e6)[::2]
    labels = (("model", "digits"), ("route", "a"), ("status", "ok"), ("version", "2"))
    name = "fettle_request_duration_seconds"
    assert found[(f"{name}_count", *labels)] == 250
    assert found[(f"{name}_sum", *labels)] == pytest.approx(told.sum())
    for bound in (*metrics.SECONDS, np.inf):
        shown = f"{bound:g}" if np.isfinite(bound) else "+Inf"
        key = (f"{name}_bucket", ("le", shown), *labels)
        assert found[key] == (told <= bound).sum()


def test_what_is_told_is_counted_as_if_it_was_seen():
    rng = np.random.default_rng(0)
    told = [
        Answered(
            f"r{at}", at, "m", "1", "ab", "ab"[at % 2], "", "rest", (float(rng.random()), 0.1, 1),
            float(rng.random()) * 9, {}, None, OSError("x") if at % 5 == 0 else None,
        )
        for at in range(100)
    ]  # fmt: skip
    one, other = Latencies(), Latencies()
    for seen, row in zip(told, predictions(told), strict=True):
        one.tell(seen)
        other.seen(row, {}, None)
    for a, b in zip(one.families(), other.families(), strict=True):
        assert samples(read([a])[a.name]) == pytest.approx(samples(read([b])[b.name]), abs=1e-4)
    statuses = {s.labels["status"] for s in one.families()[0].samples}
    assert statuses == {"ok", "OSError"}


def test_made_up_models_do_not_fill_the_memory(make, monkeypatch):
    monkeypatch.setattr(metrics, "_MOST_SERIES", 3)
    latencies = Latencies()
    for at in range(50):
        latencies.seen(make(at, model=f"m{at}"), {}, None)
    found = samples(read(latencies.families())["fettle_queue_duration_seconds"])
    counts = {dict(k[1:])["model"]: v for k, v in found.items() if k[0].endswith("_count")}
    assert counts == {"m0": 1, "m1": 1, "m2": 1, "(others)": 47}


def test_the_log_s_own_counts():
    found = read(metrics.log_families(Counts(10, 6, 1, {"queue": 3}, "disk full")))
    values = {name: next(iter(samples(family).values())) for name, family in found.items()}
    assert values == {
        "fettle_log_written": 6, "fettle_log_waiting": 1, "fettle_log_trouble": 1,
        "fettle_log_lost": 3,
    }  # fmt: skip


def test_what_observers_missed():
    found = read(metrics.observer_families({"log": 3}, {"shadow": 1}, {"kept": 2, "lost": 5}))
    assert samples(found["fettle_observer_dropped"]) == {
        ("fettle_observer_dropped_total", ("observer", "log")): 3
    }
    assert list(samples(found["fettle_observer_failed"]).values()) == [1]
    assert list(samples(found["fettle_capsules"]).values()) == [2, 5]


def test_the_machine_s_are_read():
    found = read(metrics.machine_families())
    (total,) = samples(found["nv_cpu_memory_total_bytes"]).values()
    (used,) = samples(found["nv_cpu_memory_used_bytes"]).values()
    assert 0 < used < total
    (rate,) = samples(found["nv_cpu_utilization"]).values()
    assert 0 <= rate <= 1


def test_odd_text_and_odd_numbers_survive():
    odd = 'a "quoted"\\ name\nof two lines'
    values = [float("inf"), float("-inf"), float("nan"), 0.1, 1e22, 3]
    family = Family(
        "odd", "gauge", odd, [Sample(v, {"n": f"{odd}{at}"}) for at, v in enumerate(values)]
    )
    (parsed,) = text_string_to_metric_families(exposition([family]))
    assert parsed.documentation == odd
    assert [s.labels["n"] for s in parsed.samples] == [f"{odd}{at}" for at in range(6)]
    np.testing.assert_array_equal([float(s.value) for s in parsed.samples], values)


def test_nothing_is_said_of_nothing():
    assert exposition([Family("none", "gauge", "nothing")]) == ""
