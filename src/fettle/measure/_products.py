"""Large matrix products on every engine: what a machine's peaks are measured with.

Each product is a chain of equal layers, so that reading the input and copying the output weigh
little, and is run through fettle's own runtimes: a peak is what a model could reach here, not what
the processor's data sheet says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError
from fettle.core.shelf import RUNTIMES
from fettle.runtimes import Runtime, Session

_LAYERS = 12
_SIZES = ((128, 512), (512, 1024), (768, 1536))  # rows of the input, rows and columns of the weight
_CHANNELS, _SIDE = 256, 28  # of the convolution
_ENGINES = {"f32": ("onnxruntime", "openvino"), "bf16": ("openvino",),
            "int8": ("onnxruntime", "openvino")}  # fmt: skip


@dataclass(frozen=True)
class Product:
    """One thing to time: `run` does `operations` of `precision` on `engine`."""

    precision: str
    engine: str
    shape: str
    operations: int
    run: Callable[[], object]


def products(threads: int) -> Iterator[Product]:
    """Yield the products one after the other; each engine's session closes before the next."""
    yield from _blas(threads)
    for precision, engines in _ENGINES.items():
        for engine in engines:
            for goal in ("latency", "throughput")[: min(threads, 2)]:
                yield from _on(engine, precision, threads, goal)


def _blas(threads: int) -> Iterator[Product]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    for rows, width in _SIZES:
        x, w = np.ones((rows, width), np.float32), np.ones((width, width), np.float32)
        out = np.empty((rows, width), np.float32)
        with threadpool_limits(threads, "blas"):
            yield Product("f32", "numpy", _name(rows, width), 2 * rows * width**2,
                          partial(np.matmul, x, w, out=out))  # fmt: skip


def _on(engine: str, precision: str, threads: int, goal: str) -> Iterator[Product]:
    """Yield an engine's products: one call on all threads, or with `throughput` a call for each."""
    runtime = RUNTIMES.make(engine, goal=goal)
    assert isinstance(runtime, Runtime)
    floats = "bf16" if precision == "bf16" else "f32"
    runtime = runtime.but(threads=threads, precision=floats)
    if runtime.supports() is not None:
        return
    models = [(_name(*size), 2 * size[0] * size[1] ** 2, _matmul(*size, precision == "int8"))
              for size in _SIZES]  # fmt: skip
    models.append((f"conv 3×3 of {_CHANNELS}", 2 * 9 * _CHANNELS**2 * _SIDE**2,
                   _convolution(precision == "int8")))  # fmt: skip
    for shape, operations, model in models:
        with _opened(runtime, model) as session:
            if session is None or not _runs_in(session, precision):
                continue
            spec = session.inputs[0]
            inputs = {spec.name: np.ones(spec.shape, spec.dtype)}
            callers = session.callers if goal == "throughput" else 1
            named = shape if callers == 1 else f"{shape}, {callers} at once"
            with ThreadPoolExecutor(callers) as pool:
                yield Product(precision, engine, named, callers * _LAYERS * operations,
                              partial(_at_once, pool, callers, session, inputs))  # fmt: skip


def _at_once(pool: ThreadPoolExecutor, callers: int, session: Session, inputs: Arrays) -> None:
    """Run the session for each caller, the last one on this thread."""
    others = [pool.submit(session.run, inputs) for _ in range(callers - 1)]
    session.run(inputs)
    for other in others:
        other.result()


@contextmanager
def _opened(runtime: Runtime, model: onnx.ModelProto) -> Iterator[Session | None]:
    """Open the model's session, or None where the engine refuses it: there are others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        onnx.save(model, str(path))
        try:
            session = runtime.build(path)
        except FettleError:
            session = None
        try:
            yield session
        finally:
            if session is not None:
                session.close()


def _runs_in(session: Session, precision: str) -> bool:
    """Say whether every layer that multiplies does so in `precision`."""
    heavy = [x for x in session.layers() if any(m in x.op for m in ("Conv", "MatMul", "Fully"))]
    return all(x.precision == precision for x in heavy if x.computes)


def _name(rows: int, width: int) -> str:
    return f"{rows}×{width}×{width}"


def _matmul(rows: int, width: int, integer: bool) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((width, width))
    return _chain("MatMul", (rows, width), weight, integer, {})


def _convolution(integer: bool) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((_CHANNELS, _CHANNELS, 3, 3))
    shape = (1, _CHANNELS, _SIDE, _SIDE)
    return _chain("Conv", shape, weight, integer, {"pads": [1, 1, 1, 1]})


def _chain(
    op: str, shape: tuple[int, ...], weight: np.ndarray, integer: bool, options: dict[str, Any]
) -> onnx.ModelProto:
    """Return layers in a row; the integer ones read uint8 activations and int8 weights."""
    weight = weight / np.sqrt(weight[0].size)
    held: dict[str, Any] = {"w": weight.astype(np.float32)}
    nodes, x, kind = [], "x", TensorProto.UINT8 if integer else TensorProto.FLOAT
    if integer:
        held = {"wq": np.clip(weight * 400, -127, 127).astype(np.int8), "ws": np.float32(1 / 400),
                "wz": np.int8(0), "s": np.float32(0.05), "z": np.uint8(128)}  # fmt: skip
    for i in range(_LAYERS):
        w = "w"
        if integer:
            nodes.append(helper.make_node("DequantizeLinear", [x, "s", "z"], [f"x{i}"]))
            nodes.append(helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], [f"w{i}"]))
            x, w = f"x{i}", f"w{i}"
        nodes.append(helper.make_node(op, [x, w], [f"y{i}"], name=f"product{i}", **options))
        x = f"y{i}"
        if integer:
            nodes.append(helper.make_node("QuantizeLinear", [x, "s", "z"], [f"q{i}"]))
            x = f"q{i}"
    graph = helper.make_graph(
        nodes, "products",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(x, kind, shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
