"""Weights that are computed at each call: what was copied, and what it computes, stay the same."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import fettle
from fettle.compress._plain import copied, make_plain
from fettle.core.errors import ModelError
from fettle.testing import TinyTask


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


WAYS = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight norm": weight_norm,
    "old spectral norm": spectral_norm,
    "mask": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
}


@pytest.fixture(params=WAYS)
def model(request):
    """A model with two computed weights that remember their gradient's history."""
    found = net()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # the old ones are deprecated
        for layer in (found[2], found[6]):
            WAYS[request.param](layer)
    found.eval()(x())
    return found


def x():
    return torch.from_numpy(next(TinyTask().batches("select", 32)).inputs["input"])


def outputs(model):
    with torch.no_grad():
        return model(x())


def test_weights_become_plain_and_the_original_stays(model):
    before, names = outputs(model), {n for n, _ in model.named_parameters()}
    found = copied(model)
    assert make_plain(found) == ["2.weight", "6.weight"]
    assert make_plain(found) == []
    torch.testing.assert_close(outputs(found), before, rtol=0, atol=1e-6)
    assert {n for n, _ in found.named_parameters()} == {n for n, _ in net().named_parameters()}
    assert all(type(a) is type(b) for a, b in zip(found, net(), strict=True))
    assert torch.equal(outputs(model), before)
    assert {n for n, _ in model.named_parameters()} == names
    found(x()).sum().backward()
    assert found[2].weight.grad is not None


def test_in_process_quantization(model):
    before = outputs(model)
    for found in (fettle.quantize_static(model, [x()]), fettle.quantize_dynamic(model)):
        assert (outputs(found) - before).abs().mean() < 0.03 * before.abs().mean()
    assert torch.equal(outputs(model), before)


def test_in_process_quantization_of_weights_that_are_no_numbers():
    model = net()
    with torch.no_grad():
        model[2].weight[0, 0, 0, 0] = np.inf
    for quantize in (fettle.quantize_dynamic, lambda model: fettle.quantize_static(model, [x()])):
        with pytest.raises(ModelError, match=r"`2.weight` holds NaN"):
            quantize(model)
