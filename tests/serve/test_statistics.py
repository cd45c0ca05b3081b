"""Counters as Triton has them."""

from fettle.serve.batcher import Execution, Timing
from fettle.serve.statistics import Statistics


def counted():
    statistics = Statistics()
    statistics.executed(Execution(requests=2, rows=3, size=4, compute_s=0.002))
    statistics.succeeded(1, Timing(0.001, 0.002, 3), 0.004)
    statistics.succeeded(2, Timing(0.003, 0.002, 3), 0.006)
    statistics.failed(0.005)
    return statistics.to_json("digits", "1")


def test_rows_requests_and_runs_are_counted_apart():
    told = counted()
    assert (told["name"], told["version"]) == ("digits", "1")
    assert told["inference_count"] == 3
    assert told["execution_count"] == 1
    assert told["inference_stats"]["success"] == {"count": 2, "ns": 10_000_000}
    assert told["inference_stats"]["fail"] == {"count": 1, "ns": 5_000_000}


def test_time_divides_into_waiting_and_computing():
    spent = counted()["inference_stats"]
    assert spent["queue"] == {"count": 2, "ns": 4_000_000}
    assert spent["compute_infer"] == {"count": 2, "ns": 4_000_000}
    assert spent["compute_input"]["ns"] == spent["compute_output"]["ns"] == 0


def test_runs_are_told_by_their_rows():
    (batch,) = counted()["batch_stats"]
    assert batch["batch_size"] == 3
    assert batch["compute_infer"] == {"count": 1, "ns": 2_000_000}


def test_nothing_was_done_at_first():
    told = Statistics().to_json("digits", "1")
    assert told["last_inference"] == 0
    assert told["batch_stats"] == []
    assert counted()["last_inference"] > 0
