"""The contract of a runtime and its sessions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fettle.core.arrays import Arrays, rows
from fettle.core.errors import FettleError, InputError, MissingError, ModelError
from fettle.core.shelf import RUNTIMES
from fettle.measure.lowering import LEAST_AGREEMENT, candidates
from fettle.runtimes import LayerPrecision, Runtime, Session, lowered
from fettle.testing._plugin import PluginContract
from fettle.testing._sample import sample

FLOATS = {"f32", "bf16", "f16", "f64"}
PRECISIONS = FLOATS | {"int8", "int4", "fp8", "i64", "i32", "boolean", "dynamic"}
_THREADS, _ROUNDS = 8, 12


class RuntimeContract(PluginContract):
    """What a runtime keeps, tried on a small real model in FP32 and as int8 master.

    A runtime that `supports()` says can't run here is skipped with its reason.

    Attributes:
        tolerance: largest difference from torch in FP32, of the largest output.
    """

    shelf = RUNTIMES
    tolerance: ClassVar[float] = 1e-4

    def runtime(self, name: str, **knobs: Any) -> Runtime:
        """Return the runtime on one thread; skip the test where it can't run."""
        self.load(name)
        made = self.shelf.make(name, **{"threads": 1, **knobs})
        assert isinstance(made, Runtime)
        reason = made.supports()
        if reason is not None:
            pytest.skip(reason)
        return made

    @contextmanager
    def session(self, name: str, **knobs: Any) -> Iterator[Session]:
        """Yield a session of the FP32 model."""
        session = self.build(self.runtime(name, **knobs))
        yield session
        session.close()

    def build(self, runtime: Runtime, quantized: bool = False) -> Session:
        """Return a session of the FP32 model or of the lowered int8 master."""
        if runtime.takes == "module":
            return runtime.build(sample().module)
        if quantized:
            return runtime.build(sample().master, _applicable(runtime))
        return runtime.build(sample().onnx)

    def test_says_whether_it_can_run_here(self, name: str) -> None:
        """`supports()` is None, or says what is missing."""
        made = self.load(name)()
        assert isinstance(made, Runtime)
        reason = made.supports()
        assert reason is None or len(reason) > 10
        assert made.takes in ("onnx", "module")

    def test_agrees_with_torch(self, name: str) -> None:
        """In FP32, on real inputs."""
        with self.session(name) as session:
            found = _logits(session.run(sample().inputs()))
        expected = sample().expected
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= self.tolerance * np.abs(expected).max()

    @pytest.mark.parametrize("batch", [1, 3, 8])
    def test_runs_any_batch(self, name: str, batch: int) -> None:
        """Rows of a smaller batch are those of a larger one."""
        with self.session(name) as session:
            found = _logits(session.run(sample().inputs(batch)))
        assert found.shape == (batch, 10)
        np.testing.assert_allclose(found, sample().expected[:batch], rtol=1e-3, atol=1e-3)

    def test_takes_any_layout_in_memory(self, name: str) -> None:
        """Strided, transposed and read-only arrays count by their values."""
        inputs = sample().inputs(8)["input"]
        strided = np.repeat(inputs, 2, axis=0)[::2]
        transposed = np.ascontiguousarray(inputs.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
        frozen = inputs.copy()
        frozen.flags.writeable = False
        with self.session(name) as session:
            for array in (strided, transposed, frozen):
                found = _logits(session.run({"input": array}))
                np.testing.assert_allclose(found, sample().expected[:8], rtol=1e-3, atol=1e-3)

    def test_outputs_are_the_callers(self, name: str) -> None:
        """A later run changes neither the inputs nor the outputs of an earlier one."""
        first, second = sample().inputs(4), rows(sample().inputs(), 4, 8)
        given = {k: v.copy() for k, v in first.items()}
        with self.session(name) as session:
            outputs = _logits(session.run(given))
            kept = outputs.copy()
            session.run(second)
        np.testing.assert_array_equal(outputs, kept)
        np.testing.assert_array_equal(given["input"], first["input"])

    def test_is_safe_among_threads(self, name: str) -> None:
        """Many threads get what one gets, each for its own inputs."""
        parts = [rows(sample().inputs(), 2 * i, 2 * i + 2) for i in range(_THREADS)]
        with self.session(name) as session:
            serial = [_logits(session.run(part)).copy() for part in parts]
            with ThreadPoolExecutor(_THREADS) as pool:
                jobs = [pool.submit(session.run, part) for _ in range(_ROUNDS) for part in parts]
                found = [_logits(job.result()) for job in jobs]
        for index, outputs in enumerate(found):
            np.testing.assert_array_equal(outputs, serial[index % _THREADS])

    def test_describes_its_inputs(self, name: str) -> None:
        """Names, types and shapes are the task's, with a free batch dimension."""
        with self.session(name) as session:
            if not session.inputs:
                pytest.skip(f"{name} runs modules, which don't name their inputs")
            assert session.inputs == sample().task.signature.inputs
            assert [spec.name for spec in session.outputs] == ["logits"]

    def test_refuses_inputs_that_are_wrong(self, name: str) -> None:
        """A missing input, another type or another shape is an InputError, never an old answer.

        A model's only input may come under any name.
        """
        x = sample().inputs(2)["input"]
        wrong: list[Arrays] = [{}, {"input": x[:, :, :4]}, {"input": x.astype("f8")}]
        with self.session(name) as session:
            if not session.inputs:
                pytest.skip(f"{name} runs modules, which don't name their inputs")
            expected = session.run({"input": x})["logits"]
            np.testing.assert_array_equal(session.run({"other": x})["logits"], expected)
            for inputs in [*wrong, {"input": x, "other": x}]:
                with pytest.raises(InputError):
                    session.run(inputs)

    def test_pinned_f32_is_what_runs(self, name: str) -> None:
        """No layer computes in another floating-point type than the one that was asked for."""
        with self.session(name, precision="f32") as session:
            layers = session.layers()
        assert layers, f"{name} doesn't tell what its layers run in"
        assert {layer.precision for layer in layers} <= PRECISIONS
        assert {layer.precision for layer in layers} & FLOATS == {"f32"}
        assert len(_convolutions(layers)) >= 7  # ResNet-8: one, and two in each of three blocks

    def test_pinned_bf16_runs_or_is_refused(self, name: str) -> None:
        """A runtime that can't compute in bf16 says so; one that can shows it in its layers."""
        runtime = self.runtime(name, precision="bf16")
        try:
            session = self.build(runtime)
        except (ModelError, MissingError) as error:
            assert "bf16" in str(error)  # noqa: PT017  (whether it raises is its own choice)
            return
        precisions = {layer.precision for layer in _convolutions(session.layers())}
        found = _logits(session.run(sample().inputs()))
        session.close()
        assert precisions == {"bf16"}
        assert not np.array_equal(found, sample().expected)
        np.testing.assert_allclose(found, sample().expected, atol=0.1 * sample().expected.max())

    def test_runs_the_master_in_int8(self, name: str) -> None:
        """Every convolution of the lowered master runs in integers, and answers as torch does."""
        runtime = self.runtime(name)
        if runtime.takes != "onnx":
            pytest.skip(f"{name} doesn't run ONNX")
        session = self.build(runtime, quantized=True)
        precisions = {layer.precision for layer in _convolutions(session.layers())}
        found = _logits(session.run(sample().inputs()))
        session.close()
        assert precisions == {"int8"}
        assert (found.argmax(1) == sample().expected.argmax(1)).mean() >= LEAST_AGREEMENT

    def test_refuses_files_that_are_no_model(self, name: str, tmp_path: Path) -> None:
        """A missing, empty, truncated or foreign file is a ModelError."""
        runtime = self.runtime(name)
        for path in _bad_files(tmp_path):
            with pytest.raises(ModelError):
                runtime.build(path)

    def test_refuses_an_unknown_lowering(self, name: str) -> None:
        """A lowering that doesn't exist is named."""
        runtime = self.runtime(name)
        if runtime.takes != "onnx":
            pytest.skip(f"{name} doesn't run ONNX")
        with pytest.raises(FettleError, match=r"graph\.no_such_pass"):
            runtime.build(sample().onnx, ["graph.no_such_pass"])

    def test_can_be_closed(self, name: str) -> None:
        """Closing one session leaves another of the same model alone."""
        runtime = self.runtime(name)
        first, second = self.build(runtime), self.build(runtime)
        first.close()
        assert _logits(second.run(sample().inputs(2))).shape == (2, 10)
        second.close()


def _logits(outputs: Arrays) -> np.ndarray:
    return next(iter(outputs.values()))


def _convolutions(layers: list[LayerPrecision]) -> list[LayerPrecision]:
    return [layer for layer in layers if "conv" in layer.op.lower()]


def _bad_files(folder: Path) -> list[Path]:
    names = ("missing", "empty", "garbage", "truncated")
    paths = {name: folder / f"{name}.onnx" for name in names}
    paths["empty"].write_bytes(b"")
    paths["garbage"].write_bytes(bytes(range(256)) * 8)
    shutil.copyfile(sample().onnx, paths["truncated"])
    whole = paths["truncated"].read_bytes()
    paths["truncated"].write_bytes(whole[: len(whole) // 2])
    return list(paths.values())


def _applicable(runtime: Runtime) -> list[str]:
    """Return the lowering passes for `runtime` that take the int8 master."""
    found: list[str] = []
    for name in candidates(runtime):
        with suppress(ModelError):
            lowered(sample().master, [*found, name])
            found.append(name)
    return found
