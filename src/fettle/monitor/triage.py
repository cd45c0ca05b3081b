"""Triage: what moved, why, and what to do about it. A pure function over the evidence.

A shadow is the experiment that tells causes apart: the original sees the very same inputs. Where
inputs drift both models move, and they go on agreeing; where the quantized one alone is at fault,
only their disagreement moves.

| disagreement | inputs | accuracy | cause | action |
|---|---|---|---|---|
| moved | as they were | any | quantization drift: the bundle isn't what was proven | roll back |
| moved | moved | any | inputs left the calibrated ranges | recalibrate |
| steady | moved | fell | input drift: both models are worse | retrain |
| steady | as they were | fell | concept drift: the same inputs have other answers | retrain |
| steady | moved | held, unknown | input drift, harmless as far as is known | nothing |
| no shadow | moved, and ranges clip | any | inputs left the calibrated ranges | recalibrate |
| no shadow | moved | fell | input drift | retrain |
| no shadow | as they were | fell | unknown: the bundle or the world | roll back |

Where inputs weren't looked at, moved answers stand for them. Evidence that contradicts or is
lacking is said in the reason, and the cheapest action that can be taken back is chosen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Action = Literal["recalibrate", "retrain", "roll back", "nothing"]


@dataclass(frozen=True)
class Evidence:
    """What is known; None is unknown.

    Attributes:
        inputs: whether inputs moved from the reference.
        outputs: whether answers, confidence or embeddings did.
        disagreement: whether the shadow disagrees more than it did, or than it may.
        saturated: whether layers clip more than they did on the reference.
        fallen: whether accuracy fell, by labels or by confidence.
    """

    inputs: bool | None = None
    outputs: bool | None = None
    disagreement: bool | None = None
    saturated: bool | None = None
    fallen: bool | None = None


@dataclass(frozen=True)
class Finding:
    """The cause in a few words, why it is thought so, and what to do."""

    cause: str
    reason: str
    action: Action
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def triage(evidence: Evidence) -> Finding:
    """Return what the evidence says.

    Example:
        >>> triage(Evidence(inputs=False, disagreement=True)).action
        'roll back'
        >>> triage(Evidence(inputs=True, disagreement=False, fallen=True)).action
        'retrain'
    """
    came = evidence.inputs if evidence.inputs is not None else evidence.outputs
    if evidence.disagreement:
        return _of_disagreement(evidence)
    if evidence.saturated and came:
        return _found(
            "range drift",
            "Inputs moved, and layers clip more than they did on the reference: they left the"
            " ranges that were calibrated",
            "recalibrate",
            evidence,
        )
    if evidence.fallen:
        return _of_fall(evidence, came)
    return _of_calm(evidence, came)


def _of_disagreement(evidence: Evidence) -> Finding:
    if evidence.inputs:
        clipped = ", and layers clip more" if evidence.saturated else ""
        return _found(
            "range drift",
            f"Inputs moved and the quantized model follows the original less{clipped}: it wants"
            " ranges of the new inputs",
            "recalibrate",
            evidence,
        )
    steady = evidence.inputs is False
    known = "while inputs are as they were" if steady else "and nothing tells of inputs"
    return _found(
        "quantization drift",
        f"Only the disagreement with the original moved, {known}: the bundle is not what was"
        " proven",
        "roll back",
        evidence,
    )


def _of_fall(evidence: Evidence, came: bool | None) -> Finding:
    if came:
        shadow = (
            "both models moved together"
            if evidence.disagreement is False
            else "no shadow was asked"
        )
        return _found(
            "input drift",
            f"Inputs moved and accuracy fell; {shadow}",
            "retrain",
            evidence,
        )
    if evidence.disagreement is False:
        return _found(
            "concept drift",
            "Accuracy fell while inputs and the original's agreement are as they were: the same"
            " inputs have other answers",
            "retrain",
            evidence,
        )
    return _found(
        "unknown",
        "Accuracy fell and inputs don't explain it; let the original ride as a shadow, to tell"
        " whether the bundle is at fault",
        "roll back",
        evidence,
    )


def _of_calm(evidence: Evidence, came: bool | None) -> Finding:
    if came:
        held = "accuracy held" if evidence.fallen is False else "nothing tells of accuracy"
        agree = ", the original agrees as before" if evidence.disagreement is False else ""
        return _found("input drift", f"Inputs moved, {held}{agree}: watch it", "nothing", evidence)
    if evidence.outputs:
        return _found(
            "shifted answers",
            "Answers moved while inputs, as far as they are looked at, did not: other classes may"
            " come more often",
            "nothing",
            evidence,
        )
    if evidence.saturated:
        return _found(
            "range drift",
            "Layers clip more than on the reference, and nothing else moved: watch it",
            "nothing",
            evidence,
        )
    unknown = not any(value is not None for value in asdict(evidence).values())
    reason = "Nothing was looked at" if unknown else "Nothing moved"
    return _found("unknown" if unknown else "none", reason, "nothing", evidence)


def _found(cause: str, reason: str, action: Action, evidence: Evidence) -> Finding:
    return Finding(cause, reason, action, evidence)
