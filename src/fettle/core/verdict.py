"""The verdict: is the loss of quality inside the budget, and how sure is that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from fettle.core.errors import KnobError

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Budget:
    """How much of `metric` may be lost (absolute: 0.01 is one point), and how sure to be."""

    metric: str = "top1"
    max_drop: float = 0.01
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 1:
            raise KnobError(f"`max_drop` expects 0 … 1 (0.01 is one point), got {self.max_drop}")
        if not 0.5 < self.confidence < 1:
            raise KnobError(f"`confidence` expects 0.5 … 1, got {self.confidence}")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Drop:
    """Baseline's mean score minus the candidate's, on the same examples.

    `low` and `high` are each one-sided bounds at the budget's confidence; `test` names the test.
    """

    value: float
    low: float
    high: float
    n: int
    test: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a paired non-inferiority test against a budget.

    *pass* when the drop's upper bound is within the budget, *fail* when its lower bound is past
    it, else *inconclusive*; then `needed` is how many examples would likely settle it.
    """

    outcome: Outcome
    drop: Drop
    budget: Budget
    needed: int | None = None

    @classmethod
    def of(cls, drop: Drop, budget: Budget, needed: int | None = None) -> Verdict:
        """Apply rule 5 of the rules of measurement to a drop and a budget."""
        if drop.high <= budget.max_drop:
            return cls("pass", drop, budget)
        if drop.low > budget.max_drop:
            return cls("fail", drop, budget)
        return cls("inconclusive", drop, budget, needed)

    @property
    def passed(self) -> bool:
        """Whether the drop is proven to be inside the budget."""
        return self.outcome == "pass"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "outcome": self.outcome,
            "drop": self.drop.to_json(),
            "budget": self.budget.to_json(),
            "needed": self.needed,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Verdict:
        """Read the JSON form."""
        return cls(data["outcome"], Drop(**data["drop"]), Budget(**data["budget"]), data["needed"])

    def __str__(self) -> str:
        drop, sure = self.drop, f"{100 * self.budget.confidence:.4g}%"
        text = (
            f"{self.outcome}: {self.budget.metric} drops by {drop.value:+.4f}, bounds"
            f" [{drop.low:+.4f}, {drop.high:+.4f}] at {sure} one-sided, budget"
            f" {self.budget.max_drop:.4f}, n = {drop.n} ({drop.test})"
        )
        if self.outcome != "inconclusive":
            return text
        if self.needed is None:
            return f"{text}; the drop lies on the budget, so no number of examples would settle it"
        return f"{text}; about {self.needed:,} examples would settle it"
