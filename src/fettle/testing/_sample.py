"""The small real model that the contracts work on: a CIFAR ResNet-8 on scikit-learn's digits."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from fettle import models, tasks
from fettle.core.arrays import Arrays, rows
from fettle.core.shelf import PASSES, TECHNIQUES
from fettle.export import export_onnx
from fettle.tasks import Task
from fettle.train import FitPlan, fit

# which leaves 333 to train with
SPLITS: dict[str, Any] = {"test": 1000, "select": 400, "calibrate": 64}


class Sample:
    """A model that was trained for some seconds, as a module, as FP32 ONNX and as int8 master.

    What it holds is shared by all contracts of a test run: don't change it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def task(self) -> Task:
        """Digits, with few training examples so that an epoch takes a blink."""
        return tasks.load("digits", **SPLITS)

    @cached_property
    def module(self) -> nn.Module:
        """The trained FP32 module, in evaluation mode."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so that the weights don't depend on the machine's threads
        try:
            module = models.load("cifar:resnet8", signature=self.task.signature)
            fit(module, self.task, FitPlan(epochs=10, batch_size=32), validate=False)
        finally:
            torch.set_num_threads(threads)
        return module

    @cached_property
    def encoder(self) -> nn.Module:
        """A small vision transformer with random weights, for what works on attention."""
        from fettle.models._torchvision import import_torchvision

        import_torchvision()  # timm imports it
        from timm.models.vision_transformer import VisionTransformer

        shape: dict[str, Any] = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = VisionTransformer(**shape, embed_dim=32, depth=2, num_heads=4)
        return module.eval()

    @cached_property
    def onnx(self) -> Path:
        """The FP32 ONNX file."""
        return self.exported(self.module, "fp32")

    @cached_property
    def master(self) -> Path:
        """The symmetric int8 master that `quantize.static` makes of it."""
        quantize = TECHNIQUES.make("quantize.static")
        return self.exported(quantize(self.module, self.task), "int8")  # type: ignore[operator]

    @cached_property
    def weight_only(self) -> Path:
        """The FP32 model with its linear layer's weights in int8."""
        made = PASSES.make("graph.weight_only")(ir.load(self.onnx))  # type: ignore[operator]
        path = self.folder / "weight_only.onnx"
        ir.save(made, path)
        return path

    @cached_property
    def expected(self) -> np.ndarray:
        """The FP32 module's logits on `inputs()`, shape (n, 10)."""
        with torch.inference_mode():
            array: np.ndarray = self.module(torch.from_numpy(self.inputs()["input"])).numpy()
        return array

    def inputs(self, n: int = 64) -> Arrays:
        """Return the first `n` inputs of the select split."""
        return rows(next(self.task.batches("select", 400)).inputs, 0, n)

    def exported(self, module: nn.Module, name: str) -> Path:
        """Export `module` into the folder `name`; return the ONNX file."""
        export_onnx(module, self.task, self.folder / name)
        return self.folder / name / "model.onnx"


@cache
def sample() -> Sample:
    """Return the one sample of this process; its parts are made when they are first asked for."""
    folder = tempfile.TemporaryDirectory(prefix="fettle-sample-")
    atexit.register(folder.cleanup)
    return Sample(Path(folder.name))
