"""What is told of a prediction after its answer."""

import asyncio

import numpy as np
from opentelemetry.trace import get_current_span
from tests.serve.tracing.conftest import kept_of

from fettle.monitor.answered import Answered
from fettle.serve.errors import Late

END = 1_700_000_000_000_000_000


def answered(**changes):
    fields = {
        "id": "r", "time_ns": END, "model": "m", "version": "1", "sha": "abc", "route": "canary",
        "key": "", "protocol": "rest", "timing": (0.25, 0.5, 4), "total_s": 1.0,
        "inputs": {"x": np.zeros(1)},
    }  # fmt: skip
    return Answered(**{**fields, **changes})


def test_queue_and_compute_are_reckoned_back_from_the_answer(kept):
    with kept.tracing.request("r", {}, {}):
        kept.tracing.tell(answered())
    queue, compute = kept.spans["queue"], kept.spans["compute"]
    assert (queue.start_time, queue.end_time) == (END - 750_000_000, END - 500_000_000)
    assert (compute.start_time, compute.end_time) == (END - 500_000_000, END)
    assert compute.attributes["fettle.batch.rows"] == 4
    assert kept.spans["r"].attributes["fettle.rollout.part"] == "canary"


def test_one_that_failed_says_of_what_and_has_no_parts(kept):
    with kept.tracing.request("r", {}, {}):
        kept.tracing.tell(answered(error=Late("late"), timing=(0.0, 0.0, 0)))
    assert set(kept.spans) == {"r"}
    assert kept.spans["r"].attributes["fettle.error"] == "Late"


def test_a_prediction_outside_any_request_is_nobodys(kept):
    kept.tracing.tell(answered())
    assert not kept.spans


def test_one_that_is_not_sampled_makes_no_parts():
    kept = kept_of(0.0)
    with kept.tracing.request("r", {}, {}) as span:
        assert not span.is_recording()
        kept.tracing.tell(answered())
    assert not kept.spans


def test_requests_side_by_side_keep_their_own(kept):
    async def request(number):
        with kept.tracing.request(f"r{number}", {}, {}):
            await asyncio.sleep(0.01 * (3 - number))
            kept.tracing.tell(answered(id=str(number)))

    async def main():
        await asyncio.gather(*(request(number) for number in range(3)))

    asyncio.run(main())
    for number in range(3):
        assert kept.spans[f"r{number}"].attributes["fettle.request.id"] == str(number)


def test_an_error_of_ours_leaves_no_traceback_in_the_span(kept):
    try:
        with kept.tracing.request("r", {}, {}):
            raise RuntimeError("/secret/path")
    except RuntimeError:
        pass
    assert not kept.spans["r"].events
    assert "secret" not in str(kept.spans["r"].status.description)
    assert not get_current_span().is_recording()
