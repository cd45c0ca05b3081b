"""Small stand-ins for tests: a task, a session and a reporter. None of them imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.progress import Bar
from fettle.runtimes import Session
from fettle.tasks import ArrayExamples, Classification, Data, Options, Preprocessing


class TinyTask(Classification):
    """A classification task of a few dozen small images that a linear model can learn.

    Each class is one random pattern; an example is its class's pattern with noise. Contents and
    splits depend on the arguments alone.

    Args:
        image: channels, height and width.
        classes: how many.
        examples: in all four splits together.
        seed: of the patterns, the noise and the splits.

    Example:
        >>> TinyTask(classes=3).example_inputs(2)["input"].shape
        (2, 1, 8, 8)
    """

    def __init__(
        self,
        image: tuple[int, int, int] = (1, 8, 8),
        classes: int = 4,
        examples: int = 120,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng([seed, classes, examples])
        y = np.arange(examples, dtype=np.int64) % classes
        patterns = rng.uniform(40, 215, (classes, *image))
        noisy = patterns[y] + rng.normal(0, 20, (examples, *image))
        x = noisy.clip(0, 255).astype(np.uint8)
        channels = image[0]
        preprocessing = Preprocessing("nchw", 1 / 255, (0.5,) * channels, (0.25,) * channels)
        data = Data(ArrayExamples(x, y), classes, preprocessing=preprocessing)
        super().__init__(data, seed=seed, options=Options(augment="none"))


class FakeSession(Session):
    """A session that computes `function`, with the shapes of `inputs` and `outputs`.

    Every call is kept in `calls`; `closed` says whether it was closed.

    Example:
        >>> double = FakeSession(lambda given: {"y": given["x"] * 2})
        >>> double.run({"x": np.ones(2)})["y"].tolist()
        [2.0, 2.0]
    """

    def __init__(
        self,
        function: Callable[[Arrays], Arrays],
        inputs: tuple[TensorSpec, ...] = (),
        outputs: tuple[TensorSpec, ...] = (),
    ) -> None:
        self.function, self.inputs, self.outputs = function, inputs, outputs
        self.calls: list[Arrays] = []
        self.closed = False

    def run(self, inputs: Arrays) -> Arrays:
        """Return what the function makes of `inputs`."""
        self.calls.append(inputs)
        return self.function(inputs)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


class Recorder:
    """A reporter that keeps what it is told.

    `lines` holds what was said; `bars` the title, the total and the steps done of every bar.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[RecordedBar] = []

    def say(self, message: str) -> None:
        """Keep the line."""
        self.lines.append(message)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a bar that counts."""
        recorded = RecordedBar(title, total, done)
        self.bars.append(recorded)
        yield recorded


class RecordedBar:
    """What one bar was told."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done = title, total, done
        self.notes: list[str] = []

    def step(self, note: str = "", amount: int = 1) -> None:
        """Count, and keep the note."""
        self.done += amount
        self.notes.extend([note] if note else [])
