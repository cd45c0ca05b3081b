"""Decisions, and what is left of them after a restart."""

import json
from dataclasses import replace

import pytest

from fettle.core.errors import DataError, StorageError
from fettle.serve.rollout.decisions import Decision, Decisions

ONE = Decision("promote", "m", "all is well", "p", "c", 0.01, 0.1, 1, {"errors": {"n": 9}})


def test_each_is_a_line_with_its_evidence_and_its_time(tmp_path):
    path = tmp_path / "new" / "decisions.jsonl"
    log = Decisions(path, clock=lambda: 1_000_000_000.5)
    log.add(ONE)
    log.add(replace(ONE, decision="rollback"))
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["time"] == "2001-09-09T01:46:40.500+00:00"
    assert first["evidence"] == {"errors": {"n": 9}}
    assert (first["decision"], second["decision"]) == ("promote", "rollback")


def test_the_last_of_a_pair_is_found_after_a_restart(tmp_path):
    path = tmp_path / "d.jsonl"
    log = Decisions(path)
    log.add(ONE)
    last = log.add(replace(ONE, decision="complete"))
    log.add(replace(ONE, canary="another"))
    again = Decisions(path)
    assert again.last("m", "p", "c") == last
    assert again.last("m", "p", "nobody") is None
    assert again.last("n", "p", "c") is None


def test_without_a_file_they_are_kept_in_memory():
    log = Decisions()
    log.add(ONE)
    assert [each.decision for each in log.recent] == ["promote"]


def test_memory_is_bounded():
    log = Decisions()
    for step in range(250):
        log.add(replace(ONE, step=step))
    assert [each.step for each in log.recent] == list(range(150, 250))


WHOLE = {**vars(ONE), "step": 7}
WRONG = [{**WHOLE, "step": "one"}, {**WHOLE, "decision": "guess"}, {**WHOLE, "reason": None}]


@pytest.mark.parametrize(
    "cut",
    ['{"decision": "pro', "[]", "3", '{"decision": "promote"}', "", *map(json.dumps, WRONG)],
)
def test_a_line_that_was_cut_off_is_passed_over(tmp_path, cut):
    path = tmp_path / "d.jsonl"
    Decisions(path).add(ONE)
    with path.open("a") as file:
        file.write(cut + "\n")
    Decisions(path).add(replace(ONE, step=2))
    assert [each.step for each in Decisions(path).recent] == [1, 2]


def test_after_a_line_without_an_end_a_new_one_begins(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"decision": "pro')
    Decisions(path).add(ONE)
    assert [each.decision for each in Decisions(path).recent] == ["promote"]


def test_a_file_that_can_not_be_written_costs_its_lines_only(tmp_path):
    log = Decisions(tmp_path / "d.jsonl")
    (tmp_path / "d.jsonl").mkdir()
    log.add(ONE)
    assert log.lost == 1
    assert log.last("m", "p", "c") is not None


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "d").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="lines of JSON"):
        Decisions(tmp_path / "d")
    with pytest.raises(StorageError):
        Decisions(tmp_path)
