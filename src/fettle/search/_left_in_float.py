"""What a layer in float costs an int8 model, in time: timed on the target, never summed up.

The kernels of the layer alone don't tell. Leaving one convolution of a residual stream in float
takes the sums behind it along, and puts changes of type and layout in between: in a ResNet-20 on
onnxruntime the first one nearly doubles the time, where the sum of its kernels says that it costs
nothing. And onnxruntime would put a convolution between two quantized tensors back into int8, by
tensor instead of by channel: `graph.lower_ort_float` keeps it from that.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Collection
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError
from fettle.core.hashing import fingerprint
from fettle.core.machine import this_machine, versions
from fettle.measure import Plan, Subject, ratio, run_batch, time_interleaved
from fettle.measure.lowering import meant
from fettle.runtimes import Runtime, Session
from fettle.search._store import Store

if TYPE_CHECKING:
    import onnx_ir as ir

SECONDS = 0.3  # for the whole and one variant of it
LEAST = 0.01  # of the time, for each layer: what noise hides adds up over many of them

_PRODUCT = re.compile(r"Conv(?!ert)|Gemm|MatMul|FullyConnected|Deconvolution")


class Masters(Protocol):
    """Makes int8 masters of one float model: the variants of `graph.static_int8` do."""

    def leaving(self, nodes: Collection[str]) -> ir.Model:
        """Return the master with these nodes in float."""


class LeftInFloat:
    """Times int8 models with some layers in float against the whole, and keeps what it found.

    Args:
        masters: make them.
        runtime: runs them.
        lowering: as each is lowered.
        inputs: one batch.
        store: where times are kept.
        about: what tells the model from others, for the key.
    """

    def __init__(
        self,
        masters: Masters,
        runtime: Runtime,
        lowering: Collection[str],
        inputs: Arrays,
        store: Store,
        about: str,
    ) -> None:
        self.masters, self.runtime = masters, runtime
        self.lowering = tuple(dict.fromkeys((*meant(runtime), *lowering)))
        self.inputs, self.store = inputs, store
        shapes = [list(array.shape) for array in inputs.values()]
        here = [this_machine().to_json(), versions()]
        self._held = ExitStack()
        self._about = [about, str(runtime), runtime.values(), self.lowering, shapes, here]

    def times(self, layers: Collection[str]) -> float:
        """Return how many times as long the model takes with these layers in float.

        At least 1 % longer, unless it is surely faster. Infinite where they can't be left: the
        engine refuses, or puts them back into int8, which shows in outputs that don't change.
        """
        key = fingerprint(["left in float", *self._about, sorted(layers)])
        name = f"time with {', '.join(layers)} in float"
        found = self.store.value(key, name, lambda: self._measure(layers))[0]
        return math.inf if found is None else float(found)

    def close(self) -> None:
        """Close the session that all others are timed against."""
        self._held.close()

    @cached_property
    def _whole(self) -> Session:
        session = self._build((), Path(self._held.enter_context(tempfile.TemporaryDirectory())))
        self._held.callback(session.close)
        return session

    def _measure(self, layers: Collection[str]) -> float | None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                session = self._build(layers, Path(folder))
            except FettleError:
                return None
            with closing(session):
                return self._compared(session) if self._obeys(session) else None

    def _compared(self, session: Session) -> float:
        subjects = [self._subject("left", session), self._subject("whole", self._whole)]
        samples = time_interleaved(subjects, Plan.for_budget(SECONDS))
        found = ratio(samples["left"], samples["whole"])
        return found.value if found.high < 1 else max(found.value, 1 + LEAST)

    def _obeys(self, session: Session) -> bool:
        """Say whether fewer products run in int8 than in the whole, as far as the engine tells."""
        own, whole = (_int8_products(each) for each in (session, self._whole))
        return own < whole or not whole

    def _build(self, layers: Collection[str], folder: Path) -> Session:
        """Return a session whose file lies in `folder`, which it may want to read again."""
        import onnx_ir as ir

        path = folder / "model.onnx"
        ir.save(self.masters.leaving(layers), path)
        return self.runtime.build(path, self.lowering)

    def _subject(self, label: str, session: Session) -> Subject:
        threads = self.runtime.threads or this_machine().threads
        batch = len(next(iter(self.inputs.values())))
        return Subject(label, lambda: run_batch(session, self.inputs), batch, threads)


def _int8_products(session: Session) -> int:
    return sum(
        bool(_PRODUCT.search(layer.op)) and layer.precision == "int8" for layer in session.layers()
    )
