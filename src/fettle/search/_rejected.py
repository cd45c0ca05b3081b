"""What a search tried and left, and why: for whoever asks why the winner is no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fettle.search._promise import LIKELY
from fettle.search._trial import Trial

if TYPE_CHECKING:
    from fettle.search.optimize import Search

Event = Mapping[str, Any]
Steps = tuple[str, ...]
_LAST = ("quantize.", "graph.")
_COSTS = {"latency": "time", "throughput": "time an example", "size": "size", "memory": "memory"}


@dataclass(frozen=True)
class Rejected:
    """One candidate that is not the winner; `why` is a word, `text` the reason for people.

    `why` is `refused`, `failed` (it met `test`), `slower`, `unlikely`, or `rung K`: a shape that
    was trained K times and went no further (0: it was timed untrained).
    """

    recipe: str
    why: str
    text: str
    ms: float | None = None
    drop: float | None = None
    promise: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def rejected(search: Search, winner: Trial) -> list[Rejected]:
    """Return every candidate but the winner with the reason, trials first, the fastest first."""
    judged = [_judged(search, t, winner) for t in search.trials if t is not winner]
    measured = sorted((r for r in judged if r and r.ms is not None), key=lambda r: r.ms or 0.0)
    refused = [r for r in judged if r and r.ms is None]
    refused += [Rejected(str(c.recipe), "refused", why) for c, why in search.refused]
    events = _since_start(search.workshop.store.journal.read())
    return [*measured, *sketches(events, float(winner.row["comparable_ms"])), *refused]


def _judged(search: Search, trial: Trial, winner: Trial) -> Rejected | None:
    recipe = str(trial.recipe)
    if trial.refused:
        return Rejected(recipe, "refused", trial.refused)
    if "promise" not in trial.row:
        return None
    cost, best = search.objective.cost(trial), search.objective.cost(winner)
    promise = float(trial.row["promise"])
    look = next((look for look in search.proofs if look["recipe"] == recipe), None)
    if look is not None:
        why, text = "failed", f"met the test and did not pass: {look['outcome']}"
    elif trial.runtime.takes != "onnx":
        why, text = "reference", "the reference; it never wins"
    elif cost >= best:
        what = _COSTS[search.objective.name]
        why, text = "slower", f"{cost / best:.2f} times the winner's {what}"
    elif promise < LIKELY:
        why, text = "unlikely", f"likely to be proven by {promise:.0%} only"
    else:
        why, text = "others", "not made by what was asked for"
    ms, drop = float(trial.row["comparable_ms"]), float(trial.row["drop"]["value"])
    return Rejected(recipe, why, text, ms, drop, promise)


def sketches(events: Sequence[Event], best_ms: float) -> list[Rejected]:
    """Return the sketches that went no further than the rung they were made for.

    Args:
        events: of the journal, in order.
        best_ms: the winner's time of a request.
    """
    tried = {str(e["trial"]): e for e in events if e.get("event") == "sketch"}
    made = {_shape(str(e["trial"])) for e in events if e.get("event") == "trial"}
    shapes = {line: _shape(line) for line in tried}
    beginnings = {shape[:end] for shape in shapes.values() for end in range(len(shape))}
    beginnings |= made | {shape[:end] for shape in made for end in range(len(shape))}
    return [
        _sketch(tried[line], shape, best_ms)
        for line, shape in shapes.items()
        if shape and shape not in beginnings
    ]


def _sketch(event: Event, shape: Steps, best_ms: float) -> Rejected:
    ms, drop = float(event["ms"]), event.get("drop")
    rung = sum(step.startswith("distill.") for step in shape)
    if not rung:
        faster = ms < best_ms
        text = "faster, and not among those trained" if faster else "untrained already too slow"
        return Rejected(str(event["trial"]), "rung 0", text, ms, drop)
    said = "" if drop is None else f", having lost {100 * drop:.2f} pp"
    return Rejected(
        str(event["trial"]), f"rung {rung}", f"went no further than rung {rung}{said}", ms, drop
    )


def _shape(line: str) -> Steps:
    """Return the steps of a recipe's line without its last quantization and its runtime."""
    steps = [step.strip() for step in line.rpartition("@")[0].split(" > ")]
    return tuple(_until_last(steps))


def _until_last(steps: Iterable[str]) -> Iterator[str]:
    for step in steps:
        if not step or step.startswith(_LAST):
            return
        yield step


def _since_start(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    starts = [i for i, event in enumerate(events) if event.get("event") == "start"]
    return events[starts[-1] :] if starts else events
