"""Rows of the log."""

import numpy as np
import pytest

from fettle.monitor.answered import predictions
from fettle.serve.rollout._agreement import Agreement
from fettle.serve.rollout._mirror import Mirrored
from fettle.serve.rollout._rows import shadow_row, told


def test_a_shadow_s_row_has_the_request_s_id_and_its_own_answer(fake, seen):
    request, outputs = seen(7, top=1), {"y": np.array([[0.0, 0.0, 9.0]])}
    row = shadow_row(Mirrored(request, fake("two"), outputs, None, 0.25))
    (logged,) = predictions([row])
    assert (logged.id, logged.time, logged.model) == ("r7", 7, "m")
    assert (logged.route, logged.sha, logged.top) == ("shadow", "two", 2)
    assert (logged.compute_us, logged.total_us, logged.status) == (250_000, 250_000, "ok")


@pytest.mark.parametrize(
    ("agreement", "expected"), [(Agreement(0.25, True, 0.1), 0.75), (None, None)]
)
def test_a_row_says_how_far_both_agree(fake, seen, agreement, expected):
    outputs = {"y": np.eye(3)[[0]]}
    row = shadow_row(Mirrored(seen(), fake("two"), outputs, None, 0.1), agreement)
    (logged,) = predictions([row])
    assert logged.agreement == expected


def test_a_shadow_s_failure_is_a_failure(fake, seen):
    row = shadow_row(Mirrored(seen(), fake("two"), None, RuntimeError("broke"), 0.1))
    (logged,) = predictions([row])
    assert (logged.status, logged.error, logged.top) == ("RuntimeError", "broke", None)


def test_what_was_seen_comes_back_from_its_row(seen):
    request = seen(3, timing=(0.5, 0.25, 2), total_s=1.0)
    (row,) = predictions([request])
    assert told(row, request.inputs, request.outputs) == request
    (row,) = predictions([seen(error=ValueError("no"), outputs=None)])
    assert str(told(row, {}, None).error) == "ValueError: no"
