"""From ONNX to the bytes of an engine, with the module `tensorrt` (10 or 11) as it is given.

Precision is in the graph alone: the network is strongly typed, which 11 always is and 10 is asked
to be. Builder flags for FP16 and INT8, calibrators and layer precisions are gone in 11 and not
used in 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import ModelError

Profile = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
_MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    """How an engine is to be built.

    Attributes:
        batch: size of a free first dimension that kernels are chosen for.
        largest_batch: largest size of a free first dimension.
        length: size of any other free dimension, and the largest.
        workspace_mb: MiB that layers may use.
    """

    batch: int
    largest_batch: int
    length: int
    workspace_mb: int

    def shapes(
        self, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the least, usual and largest form of a shape in which -1 is free."""
        sizes = ((1, 1), (self.batch, self.length), (self.largest_batch, self.length))
        return tuple(  # type: ignore[return-value]  # there are three
            tuple(n if n >= 0 else first if i == 0 else other for i, n in enumerate(shape))
            for first, other in sizes
        )


@dataclass(frozen=True)
class Built:
    """A serialized engine, and the timing cache with what was measured for it."""

    engine: bytes
    timings: bytes


class Log:
    """What TensorRT says, kept for error messages; `Log.of(trt)` makes the logger."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def of(self, trt: Any) -> Any:
        """Return a logger of the module `trt` that writes here."""
        kept, worst = self.errors, (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]  # the module is not typed
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in worst:
                    kept.append(message.strip())

        return Logger()

    def last(self) -> str:
        """Return the last complaint, without the C++ file that it came from."""
        text = self.errors[-1].splitlines()[0] if self.errors else "TensorRT gave no reason"
        return text.partition(" In ")[0]


def build_engine(trt: Any, model: bytes, plan: Plan, timings: bytes = b"") -> Built:
    """Parse `model` and build an engine of it.

    Args:
        trt: the module `tensorrt`.
        model: a serialized ONNX model, with its weights.
        plan: how.
        timings: a timing cache that was kept, which saves the measuring of kernels.

    Raises:
        ModelError: the parser or the builder refuse it; the message says why.
    """
    log = Log()
    builder = trt.Builder(logger := log.of(trt))
    network = builder.create_network(_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise ModelError(f"TensorRT's parser refuses the model: {_faults(parser)}")
    config = _config(trt, builder, plan)
    profile = _profile(builder, network, plan)
    if profile is not None:
        config.add_optimization_profile(profile)
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError(f"TensorRT can't build an engine of the model: {log.last()}")
    return Built(bytes(engine), bytes(config.get_timing_cache().serialize()))


def _typed(trt: Any) -> int:
    """Return the flags of a network whose types are those of the graph."""
    flags = getattr(trt, "NetworkDefinitionCreationFlag", None)
    typed = getattr(flags, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


def _faults(parser: Any) -> str:
    """Return where and why the parser stopped."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    lines = [f"{e.node_name() or e.node_operator()}: {e.desc().splitlines()[0]}" for e in errors]
    return "; ".join(lines) or "it gave no reason"


def _config(trt: Any, builder: Any, plan: Plan) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace_mb * _MIB)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # else "f32" has ten bits of mantissa
    return config


def _profile(builder: Any, network: Any, plan: Plan) -> Any:
    """Return the range of shapes, None where nothing is free."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    free = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not free:
        return None
    profile = builder.create_optimization_profile()
    for tensor in free:
        profile.set_shape(tensor.name, *plan.shapes(tuple(tensor.shape)))
    return profile
