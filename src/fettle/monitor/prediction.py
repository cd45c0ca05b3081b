"""One prediction of a server: what was asked, who answered, how it went and how long it took."""

from __future__ import annotations

from dataclasses import dataclass, field

from fettle.core.arrays import Arrays

OK = "ok"
Label = int | float | str


@dataclass(frozen=True)
class Prediction:
    """One row of the prediction log.

    Attributes:
        id: of the request, by which a label finds it; a shadow's row has that of its primary.
        time: when the request came, in nanoseconds of the wall clock since the epoch.
        model, version: what was asked for.
        sha: which bundle answered.
        route: why this one answered: "only", "primary", "shadow", "a", "b" or "canary".
        key: by which a caller keeps to one arm of a rollout; '' for none.
        status: "ok", or the name of the error's class.
        error: what went wrong, in words.
        batch: rows of the engine's run that this request was part of; 0 for none.
        queue_us, compute_us, total_us: waiting, computing, and all from its first byte to its
            answer, in microseconds.
        protocol: "rest", "grpc" or "ray".
        top: the largest class of the first output, where it classifies one example.
        confidence: the probability of that class.
        agreement: of a shadow's row, the share of its examples that it answers as was answered;
            None where they can't be compared, and of all other rows.
        label: what was right, from feedback.
        inputs, outputs: by name, batch first; only of a prediction that was sampled.
    """

    id: str
    time: int
    model: str
    version: str = "1"
    sha: str = ""
    route: str = "only"
    key: str = ""
    status: str = OK
    error: str = ""
    batch: int = 1
    queue_us: int = 0
    compute_us: int = 0
    total_us: int = 0
    protocol: str = "rest"
    top: int | None = None
    confidence: float | None = None
    agreement: float | None = None
    label: Label | None = None
    inputs: Arrays | None = field(default=None, repr=False, compare=False)
    outputs: Arrays | None = field(default=None, repr=False, compare=False)

    @property
    def failed(self) -> bool:
        """Whether the caller got no prediction."""
        return self.status != OK
