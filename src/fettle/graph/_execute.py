"""Running a graph on real inputs to look inside: the values of named tensors, batch by batch.

Nothing is collected here. Whoever calibrates keeps only what it needs of each batch, so that memory
doesn't grow with the number of examples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from fettle.core.arrays import Arrays, rows
from fettle.core.errors import DataError, ModelError

if TYPE_CHECKING:
    from fettle.tasks import Task

_LARGE = 1_800_000_000  # bytes; protobuf's own limit is 2 GiB


class Probe:
    """A loaded graph whose inner tensors can be read; the model itself is left as it is.

    Args:
        model: the graph.
        names: of the tensors to read, beside which the graph's own outputs are returned.
        threads: 0 uses all there are.

    Raises:
        ModelError: onnxruntime refuses the graph.
    """

    def __init__(self, model: ir.Model, names: Sequence[str] = (), threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_mem_pattern = False  # batches may differ in size
        outputs = [str(value.name) for value in model.graph.outputs]
        self.outputs = tuple(outputs)
        self._names = [*outputs, *(name for name in names if name not in outputs)]
        self._session = _session(_exposing(model, self._names), options)
        first = self._session.get_inputs()[0].shape
        self._fixed = first[0] if first and isinstance(first[0], int) else 0
        self.inputs = tuple(value.name for value in self._session.get_inputs())

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Return the tensors by name for one batch of exactly the size that the graph takes."""
        if len(self.inputs) == len(inputs) == 1:
            inputs = {self.inputs[0]: next(iter(inputs.values()))}
        try:
            found = self._session.run(self._names, {name: inputs[name] for name in self.inputs})
        except KeyError as error:
            raise DataError(
                f"the model's inputs are {list(self.inputs)}, and the data brings {list(inputs)};"
                " give data that has them all"
            ) from error
        except Exception as error:  # onnxruntime's exception classes have no public base
            raise ModelError(f"onnxruntime can't run the model on this data: {error}") from error
        return dict(zip(self._names, found, strict=True))

    def over(self, batches: Iterator[Arrays]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the tensors of each batch, cut to the batch size that a fixed graph asks for."""
        for batch in batches:
            yield from (self(part) for part in self._cut(batch))

    def _cut(self, batch: Arrays) -> Iterator[Arrays]:
        n = len(next(iter(batch.values())))
        size = self._fixed or n
        for start in range(0, n - size + 1, size):
            yield rows(batch, start, start + size)


def calibration(task: Task, examples: int, batch_size: int) -> Iterator[Arrays]:
    """Yield at most `examples` inputs of the task's `calibrate` split, in batches.

    Raises:
        DataError: an input isn't batch first, or a value is NaN or infinite, for then a range
            means nothing.
    """
    left = examples
    for batch in islice(task.batches("calibrate", batch_size), -(-examples // batch_size)):
        for name, array in batch.inputs.items():
            if array.shape[:1] != (len(batch),):
                raise DataError(
                    f"calibration input `{name}` has shape {array.shape} in a batch of"
                    f" {len(batch)}: every input is expected batch first"
                )
        inputs = rows(batch.inputs, 0, left)
        for name, array in inputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(
                    f"calibration input `{name}` holds NaN or infinity; mend or drop those examples"
                )
        yield inputs
        left -= len(next(iter(inputs.values())))


def _exposing(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy of `model` whose outputs are the tensors called `names`."""
    copied = model.clone()
    values = {value.name: value for value in _values(copied.graph)}
    missing = [name for name in names if name not in values]
    assert not missing, f"the graph has no {missing}"
    copied.graph.outputs[:] = [values[name] for name in names]
    return copied


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _session(model: ir.Model, options: ort.SessionOptions) -> ort.InferenceSession:
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    try:
        if size < _LARGE:
            content = ir.to_proto(model).SerializeToString()
            return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            ir.save(model, path, external_data="model.onnx.data")
            return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes have no public base
        raise ModelError(f"onnxruntime refuses the model: {error}") from error
