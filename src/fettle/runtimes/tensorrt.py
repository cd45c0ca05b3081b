"""TensorRT 10 and 11 on an NVIDIA GPU.

The precision is the graph's: a float model runs in f32 (TF32 is switched off), what `graph.half`
wrote in f16, a symmetric Q/DQ master in INT8; each engine is asked for its layers after the build,
and refused when it does something else. Engines are kept in the user's cache, bound to TensorRT's
version, the GPU and the model. Runs go through a CUDA graph on a stream of their own.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fettle.core.bundle import MODEL, Bundle
from fettle.core.errors import FettleError, MissingError, ModelError
from fettle.core.knobs import Range
from fettle.runtimes._cache import Cache
from fettle.runtimes._lowering import lowered
from fettle.runtimes._runtime import Runtime, Session
from fettle.runtimes._tensorrt_building import Plan, build_engine
from fettle.runtimes._tensorrt_bundle import FOLDER, engine_beside, with_more
from fettle.runtimes._tensorrt_cuda import Cuda, CudaError
from fettle.runtimes._tensorrt_layers import check_precision
from fettle.runtimes._tensorrt_store import Binding, keep
from fettle.runtimes._trtexec import Form, trtexec_commands

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

_OLDEST = 10
_INSTALL = (
    "pip install tensorrt (which fetches NVIDIA's libraries from NVIDIA's own package index: let"
    " pip reach it)"
)
_GPU = "run it where there is an NVIDIA GPU with its driver, or use onnxruntime or openvino"


@dataclass(frozen=True, kw_only=True)
class TensorRt(Runtime):
    """NVIDIA's TensorRT on the first CUDA device."""

    runs_on = "cuda"

    batch: Annotated[int, Range(1, 65536, "examples"), "batch that kernels are chosen for"] = 1
    largest_batch: Annotated[int, Range(1, 65536, "examples"), "largest batch that it takes"] = 64
    length: Annotated[int, Range(1, 1 << 20), "largest size of any other free dimension"] = 128
    workspace_mb: Annotated[int, Range(1, 1 << 20, "MiB"), "memory that layers may use"] = 4096

    def supports(self) -> str | None:
        """Say what is missing here; asks for a device before TensorRT is touched."""
        try:
            self._open()
        except (MissingError, ModelError) as error:
            return str(error)
        return None

    def build(self, model: Path | nn.Module, lowering: Sequence[str] = ()) -> Session:
        """Build an engine of the ONNX file `model`, or take the one that was kept.

        Raises:
            MissingError: no TensorRT, an old one, or no CUDA device.
            ModelError: TensorRT refuses the model.
            CheckFailed: the engine computes in another precision than the graph asks for.
        """
        assert isinstance(model, Path)
        return self._make(model, lowering)[0]

    def trtexec(self, model: Path) -> dict[str, str]:
        """Return, for each version of TensorRT, the command that builds and times `model`.

        It says what these knobs say. No GPU is needed to be told.

        Raises:
            ModelError: the file is missing, or no ONNX model.
        """
        graph = _graph(model, ())
        shapes = {}
        for value in graph.graph.inputs:
            sizes = tuple(n if isinstance(n, int) else -1 for n in value.shape or ())
            if -1 in sizes and not value.is_initializer():
                shapes[str(value.name)] = self._plan().shapes(sizes)
        return trtexec_commands(model, _asked(graph)[0], shapes, self.workspace_mb)

    def add_to_bundle(self, folder: Path, lowering: Sequence[str] = ()) -> None:
        """Put the engine of `model.onnx` for this GPU into the folder of a bundle, unsealed yet.

        Raises:
            MissingError: no TensorRT, an old one, or no CUDA device.
            ModelError: TensorRT refuses the model.
            CheckFailed: the engine computes in another precision than the graph asks for.
        """
        session, binding, engine = self._make(folder / MODEL, lowering)
        session.close()
        keep(folder / FOLDER, binding, engine)

    def seal(self, bundle: Path, lowering: Sequence[str] = ()) -> Bundle:
        """Put the engine for this GPU into a bundle that was sealed before, for another machine.

        Raises:
            BundleError: the bundle is corrupted.
            FettleError: what `add_to_bundle` raises; the bundle stays as it was.
        """
        return with_more(bundle, lambda folder: self.add_to_bundle(folder, lowering))

    def _make(self, model: Path, lowering: Sequence[str]) -> tuple[Session, Binding, bytes]:
        """Return a session whose precision is proven, its engine, and what that is bound to."""
        import onnx_ir as ir

        trt, cuda = self._open()
        graph = _graph(model, lowering)
        _refuse(graph)
        contents = ir.to_proto(graph).SerializeToString()
        binding = self._binding(trt, cuda, contents)
        engine = self._engine(trt, cuda, model, contents, binding)
        from fettle.runtimes._tensorrt_session import TensorRtSession

        session = TensorRtSession(trt, cuda, engine, self._plan())
        try:
            check_precision(session.engine_layers(), *_asked(graph))
        except FettleError:
            session.close()
            raise
        return session, binding, engine

    def _open(self) -> tuple[Any, Cuda]:
        """Return the module and the device; the device first, without which TensorRT may crash.

        Raises:
            MissingError: one of them isn't here.
            ModelError: a precision is asked for that isn't the graph's.
        """
        if self.precision != "f32":
            raise ModelError(
                f"TensorRT takes its precision from the graph, not from the knob: in place of"
                f" precision='{self.precision}' give it what `graph.half` writes, or an int8 master"
            )
        if not _installed():
            raise MissingError("the package `tensorrt` is not installed", _INSTALL)
        try:
            cuda = Cuda()
        except CudaError as error:
            raise MissingError(f"TensorRT needs a CUDA device: {error}", _GPU) from error
        try:
            trt = _module()
        except (ImportError, OSError) as error:
            raise MissingError(f"`tensorrt` can't be loaded ({error})", _INSTALL) from error
        if int(trt.__version__.split(".")[0]) < _OLDEST:
            raise MissingError(
                f"TensorRT {trt.__version__} is installed, {_OLDEST} or newer is needed", _INSTALL
            )
        return trt, cuda

    def _plan(self) -> Plan:
        return Plan(
            batch=min(self.batch, self.largest_batch),
            largest_batch=self.largest_batch,
            length=self.length,
            workspace_mb=self.workspace_mb,
        )

    def _binding(self, trt: Any, cuda: Cuda, contents: bytes) -> Binding:
        gpu, digest = cuda.gpu(), hashlib.sha256(contents).hexdigest()
        plan = asdict(self._plan())
        return Binding(trt.__version__, gpu.name, gpu.capability, digest, plan)

    def _engine(
        self, trt: Any, cuda: Cuda, model: Path, contents: bytes, binding: Binding
    ) -> bytes:
        """Return the engine of the bundle, the one that was kept, or a new one."""
        cache = Cache("tensorrt")
        found = engine_beside(model, binding) or cache.kept(binding.key)
        if found is not None:
            return found
        cuda.use()
        timings = cache.kept(binding.timing_key) or b""
        built = build_engine(trt, contents, self._plan(), timings)
        cache.keep(binding.timing_key, built.timings)
        cache.keep(binding.key, built.engine)
        return built.engine


def _installed() -> bool:
    """Say whether there is a package `tensorrt`, without importing it."""
    return importlib.util.find_spec("tensorrt") is not None


def _module() -> Any:
    return importlib.import_module("tensorrt")


def _graph(model: Path, lowering: Sequence[str]) -> ir.Model:
    """Return the lowered graph with its weights in memory."""
    import onnx
    import onnx_ir as ir

    made = lowered(model, lowering)
    if isinstance(made, bytes):
        return ir.from_proto(onnx.ModelProto.FromString(made))  # type: ignore[no-any-return]
    try:
        graph = ir.external_data.load_to_model(ir.load(made))
    except Exception as error:  # protobuf's errors and onnx_ir's have no base in common
        raise ModelError(f"{made} is no sound ONNX model ({error}); export it anew") from error
    if not graph.graph.outputs:
        raise ModelError(f"{made} is no sound ONNX model (it has no output); export it anew")
    return graph


def _refuse(graph: ir.Model) -> None:
    """Say before the build, in words that mend it, what TensorRT would refuse or miscompute."""
    from fettle.graph.tensorrt_lint import lint

    bad = [finding for finding in lint(graph) if finding.severity in ("rejected", "wrong")]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        first = bad[0]
        raise ModelError(
            f"TensorRT refuses the model: `{first.node}` has {first.found}{more}; {first.mend}"
        )


def _asked(graph: ir.Model) -> tuple[Form, frozenset[str]]:
    """Return the precision that a graph asks for, and the products that should run in it."""
    from fettle.graph.tensorrt_lint import products

    found = products(graph)
    forms: tuple[Form, ...] = ("int8", "f16")
    form: Form = next((form for form in forms if found[form]), "f32")
    return form, frozenset(found[form])
