"""Triage, on a table of cases: the evidence, the cause, and what to do."""

import dataclasses
import itertools
import json

import pytest

from fettle.monitor.triage import Evidence, triage

YES, NO, UNKNOWN = True, False, None
CASES = [
    # inputs, outputs, disagreement, saturated, fallen, cause, action
    (NO, NO, NO, NO, NO, "none", "nothing"),
    (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, "unknown", "nothing"),
    (NO, NO, YES, NO, NO, "quantization drift", "roll back"),
    (NO, YES, YES, NO, YES, "quantization drift", "roll back"),
    (UNKNOWN, YES, YES, UNKNOWN, UNKNOWN, "quantization drift", "roll back"),
    (UNKNOWN, UNKNOWN, YES, UNKNOWN, UNKNOWN, "quantization drift", "roll back"),
    (YES, YES, YES, YES, YES, "range drift", "recalibrate"),
    (YES, YES, YES, UNKNOWN, UNKNOWN, "range drift", "recalibrate"),
    (YES, YES, UNKNOWN, YES, UNKNOWN, "range drift", "recalibrate"),
    (YES, YES, NO, NO, YES, "input drift", "retrain"),
    (YES, YES, UNKNOWN, UNKNOWN, YES, "input drift", "retrain"),
    (UNKNOWN, YES, NO, UNKNOWN, YES, "input drift", "retrain"),
    (YES, NO, NO, NO, NO, "input drift", "nothing"),
    (YES, YES, UNKNOWN, UNKNOWN, UNKNOWN, "input drift", "nothing"),
    (NO, NO, NO, NO, YES, "concept drift", "retrain"),
    (NO, YES, NO, UNKNOWN, YES, "concept drift", "retrain"),
    (NO, NO, UNKNOWN, NO, YES, "unknown", "roll back"),
    (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, YES, "unknown", "roll back"),
    (NO, YES, NO, NO, NO, "shifted answers", "nothing"),
    (NO, NO, NO, YES, NO, "range drift", "nothing"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:5])))
def test_cases(case):
    *known, cause, action = case
    found = triage(Evidence(*known))
    assert (found.cause, found.action) == (cause, action)
    assert len(found.reason) > 10


def every():
    for known in itertools.product((YES, NO, UNKNOWN), repeat=5):
        yield Evidence(*known)


def test_every_evidence_has_an_answer_that_is_json():
    for evidence in every():
        told = json.loads(json.dumps(triage(evidence).to_json()))
        assert told["evidence"] == dataclasses.asdict(evidence)


def test_nobody_retrains_for_a_bundle_that_alone_is_at_fault():
    for evidence in every():
        if evidence.disagreement:
            assert triage(evidence).action in ("roll back", "recalibrate")


def test_nobody_rolls_back_what_both_models_share():
    for evidence in every():
        if evidence.disagreement is False:
            assert triage(evidence).action != "roll back"


def test_better_knowledge_of_accuracy_never_calms_a_disagreement():
    for evidence in every():
        if evidence.disagreement:
            held = triage(dataclasses.replace(evidence, fallen=False))
            assert held.action == triage(dataclasses.replace(evidence, fallen=True)).action
