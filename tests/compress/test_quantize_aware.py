import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from fettle import models
from fettle.compress.quantize import _pt2e
from fettle.compress.quantize._learned import LearnedScale
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.export import export_onnx
from fettle.testing import TechniqueContract, sample


def aware(**knobs):
    return TECHNIQUES.make("quantize.aware", **{"epochs": 1, "batch_size": 16, **knobs})


def small_resnet(task, seed=0):
    """ResNet-8 whose batch norms have lived: another ε, signs, and a channel that is off."""
    model = models.load("cifar:resnet8", signature=task.signature, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eps = 1e-2
        for tensor, low in ((norm.weight, -1), (norm.bias, -1), (norm.running_var, 0.5)):
            tensor.data.uniform_(low, 1, generator=generator)
        norm.weight.data[0] = 0
    return model.eval()


def images(task, n=32):
    return torch.from_numpy(next(task.batches("train", n)).inputs["input"])


def int8_weights(path):
    """Return the int8 weights of layers in an ONNX file."""
    graph = onnx.load(path).graph
    arrays = [numpy_helper.to_array(t) for t in graph.initializer]
    return [a for a in arrays if a.dtype == np.int8 and a.ndim > 1]


def test_it_answers_as_the_float_model_does():
    quantized = TechniqueContract().result("quantize.aware")
    (batch,) = sample().task.batches("select", 400)
    x = torch.from_numpy(batch.inputs["input"])
    with torch.inference_mode():
        found, expected = (
            (module(x).argmax(1).numpy() == batch.targets).mean()
            for module in (quantized, sample().module)
        )
    assert expected > 0.8
    assert found > expected - 0.05


@pytest.mark.parametrize("scales", ["observed", "learned"])
def test_conversion_computes_what_was_trained(tiny, scales, monkeypatch):
    """The fake quantization of training and the integers of the result give the same logits."""
    trained = []
    convert = _pt2e.convert

    def watched(prepared):
        with torch.no_grad():
            trained.append(prepared(images(tiny)).numpy())
        return convert(prepared)

    monkeypatch.setattr(_pt2e, "convert", watched)
    model = small_resnet(tiny)
    converted = aware(scales=scales, epochs=2)(model, tiny)
    with torch.no_grad():
        found = converted(images(tiny)).numpy()
    difference = np.abs(found - trained[0])
    assert difference.mean() < 1e-3 * np.abs(trained[0]).mean()
    assert not np.allclose(found, model(images(tiny)).detach(), rtol=1e-3)


def test_learned_scales_are_trained(tiny, monkeypatch):
    """They move, all by the optimizer, and stay positive; observed ones would follow extremes."""
    before, after = [], []
    start, convert = _pt2e.calibrate, _pt2e.convert

    def scales(prepared):
        return [
            float(m.scale.detach().mean())
            for m in prepared.modules()
            if isinstance(m, LearnedScale)
        ]

    def started(prepared, batches):
        start(prepared, batches)
        before.extend(scales(prepared))

    def ended(prepared):
        after.extend(scales(prepared))
        return convert(prepared)

    monkeypatch.setattr(_pt2e, "calibrate", started)
    monkeypatch.setattr(_pt2e, "convert", ended)
    aware(scales="learned", optimizer="adamw", lr=1e-3)(small_resnet(tiny), tiny)
    assert len(before) > 10
    moved = np.abs(np.array(after) - np.array(before))
    assert (moved > 0).mean() > 0.9
    assert moved.max() < 1e-3
    assert min(after) > 0


@pytest.mark.parametrize("scales", ["observed", "learned"])
def test_pruned_weights_stay_zero_into_the_integers(tiny, tmp_path, scales):
    """Unstructured and 2:4 zeros survive training, the fold of batch norms, and rounding."""
    model = small_resnet(tiny)
    masks = []
    for layer in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        groups = layer.weight.data.reshape(-1, 4) if layer.in_channels > 1 else None
        if groups is not None:
            groups.scatter_(1, groups.abs().topk(2, dim=1, largest=False).indices, 0)
        masks.append((layer.weight.data == 0).numpy())
    quantized = aware(scales=scales, epochs=2, lr=0.05)(model, tiny)
    export_onnx(quantized, tiny, tmp_path / "out")
    found = [w for w in int8_weights(tmp_path / "out" / "model.onnx") if w.ndim == 4]
    assert sum(mask.mean() >= 0.5 for mask in masks) >= len(masks) - 1
    assert len(found) == len(masks)
    for mask, weight in zip(masks, found, strict=True):
        assert not weight[mask].any()
        assert weight[1:][~mask[1:]].astype(bool).mean() > 0.9  # channel 0 has γ = 0


def test_it_works_on_narrow_and_shallow_models(tiny):
    model = small_resnet(tiny)
    narrow = TECHNIQUES.make("prune.channels", ratio=0.5, epochs=0)(model, tiny)
    quantized = aware()(narrow, tiny)
    assert torch.isfinite(quantized(images(tiny))).all()


def test_its_hooks_can_be_sent_to_other_processes(tiny):
    """Pickle is Python's own way between processes; nothing is written with it."""
    model = small_resnet(tiny)
    for scales in ("observed", "learned"):
        hooks = aware(scales=scales)._hooks(model, tiny)
        assert pickle.loads(pickle.dumps(hooks)).on_step is not None


class Nothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x.flatten(1)[:, :4] * self.scale


def test_nothing_to_quantize_is_refused(tiny):
    with pytest.raises(ModelError, match="nothing to quantize"):
        aware()(Nothing(), tiny)
