"""The contract of a technique: a torch module in, a sound one out."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, symbolic_trace

from fettle import models
from fettle.compress import Technique
from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.export import export_onnx
from fettle.testing._plugin import PluginContract
from fettle.testing._sample import sample


class TechniqueContract(PluginContract):
    """What a technique keeps, tried on a small real model.

    Attributes:
        quick: knobs to shorten the work with, where a technique has them.
        costly: names whose repetition is marked `slow`.
    """

    shelf = TECHNIQUES
    quick: ClassVar[dict[str, Any]] = {"epochs": 1}
    costly: ClassVar[Collection[str]] = ()

    def marks(self, name: str, test: str) -> list[pytest.MarkDecorator]:
        """Return `slow` for the test that applies a costly technique again."""
        again = test == "test_same_seed_same_result" and name in self.costly
        return [pytest.mark.slow] if again else []

    def technique(self, name: str) -> Technique:
        """Return the technique, shortened."""
        known = {knob.name for knob in self.load(name).knobs()}
        plugin = self.shelf.make(name, **{k: v for k, v in self.quick.items() if k in known})
        assert isinstance(plugin, Technique)
        return plugin

    def result(self, name: str) -> nn.Module:
        """Return what the technique makes of the sample; in one process each is applied once."""
        return _applied(self.technique(name)).model

    def test_leaves_the_model_that_it_is_given_alone(self, name: str) -> None:
        """Weights, buffers, modes and gradients' flags are as before, bit for bit."""
        subject = _subject(self.technique(name))
        before = _portrait(subject)
        result = self.result(name)
        assert result is not subject
        _assert_same(before, _portrait(subject))

    def test_makes_finite_outputs_of_the_right_shape(self, name: str) -> None:
        """For any batch: one row of finite logits an example."""
        result = self.result(name)
        for n in (1, 3, 8):
            outputs = _outputs(result, n)
            assert outputs.shape == (n, sample().task.signature.classes)
            assert torch.isfinite(outputs).all()

    def test_examples_do_not_touch_each_other(self, name: str) -> None:
        """An example's output doesn't depend on what else is in its batch."""
        result = self.result(name)
        torch.testing.assert_close(_outputs(result, 8)[:3], _outputs(result, 3), rtol=0, atol=1e-4)

    def test_refuses_a_converted_graph(self, name: str) -> None:
        """After a conversion nothing can be compressed further."""
        graph = symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        assert isinstance(graph, GraphModule)
        with pytest.raises(ModelError, match=name):
            self.technique(name)(graph, sample().task)

    def test_exports_with_parity(self, name: str, tmp_path: Path) -> None:
        """The result goes through the hand-over to the production half."""
        export_onnx(self.result(name), sample().task, tmp_path / "out")
        assert (tmp_path / "out" / "model.onnx").is_file()

    def test_leaves_the_teacher_alone(self, name: str) -> None:
        """A teacher of the context is as before, too."""
        self.result(name)
        _assert_same(_portrait(_new_teacher()), _portrait(_teacher()))

    def test_leaves_the_global_generator_alone(self, name: str) -> None:
        """The caller's own random numbers don't depend on whether a technique ran."""
        assert _applied(self.technique(name)).kept_generator

    def test_same_seed_same_result(self, name: str) -> None:
        """The seed decides, whatever state torch's global generator is in."""
        first = self.result(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            second = _apply(self.technique(name)).model
        assert torch.equal(_outputs(first, 8), _outputs(second, 8))


@dataclass(frozen=True)
class _Applied:
    model: nn.Module
    kept_generator: bool


def _apply(technique: Technique) -> _Applied:
    before = torch.get_rng_state()
    model = technique.within(Context(teacher=_teacher()))(_subject(technique), sample().task)
    return _Applied(model, torch.equal(torch.get_rng_state(), before))


def _subject(technique: Technique) -> nn.Module:
    """Return the sample that the technique works on: the convolutional one, else the encoder."""
    try:
        technique.requires(sample().module, sample().task)
    except ModelError:
        return sample().encoder
    return sample().module


@functools.cache
def _applied(technique: Technique) -> _Applied:
    """Return what came of a technique on the sample; each is applied once."""
    return _apply(technique)


@functools.cache
def _teacher() -> nn.Module:
    return _new_teacher()


def _new_teacher() -> nn.Module:
    """Return a teacher in training mode, whose weights want gradients."""
    signature = sample().task.signature
    return models.load("cifar:resnet8x0.5", signature=signature, seed=7).train()


def _outputs(module: nn.Module, n: int) -> torch.Tensor:
    with torch.inference_mode():
        outputs: torch.Tensor = module(torch.from_numpy(sample().inputs(n)["input"]))
    return outputs


def _portrait(module: nn.Module) -> dict[str, Any]:
    """Return all of a module that a technique could change by mistake."""
    return {
        "state": {k: v.clone() for k, v in module.state_dict().items()},
        "modes": {k: m.training for k, m in module.named_modules()},
        "gradients": {k: p.requires_grad for k, p in module.named_parameters()},
        "hooks": {k: len(m._forward_hooks) for k, m in module.named_modules()},
    }


def _assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for part in ("modes", "gradients", "hooks"):
        assert before[part] == after[part], f"{part} changed"
    assert before["state"].keys() == after["state"].keys()
    changed = [k for k, v in before["state"].items() if not torch.equal(v, after["state"][k])]
    assert not changed, f"{changed} changed"
