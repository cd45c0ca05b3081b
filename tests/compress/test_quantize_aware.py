import numpy as np
import torch
from torch import nn
from torchao.quantization.pt2e import disable_observer

from fettle.compress.quantize import _pt2e
from fettle.core.shelf import TECHNIQUES
from fettle.testing import TechniqueContract, sample
from fettle.train import EpochRecord


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


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


def test_conversion_computes_what_was_trained(tiny):
    """The fake quantization of training and the integers of the result have the same scales."""
    model = net()
    prepared = _pt2e.prepare_training(model, tiny)
    x = torch.from_numpy(next(tiny.batches("train", 64)).inputs["input"])
    _pt2e.set_training(prepared, True)
    prepared(x)
    prepared.apply(disable_observer)
    _pt2e.set_training(prepared, False)
    with torch.inference_mode():
        trained = prepared(x).numpy()
        converted = _pt2e.convert(prepared)(x).numpy()
    np.testing.assert_allclose(converted, trained, atol=1e-5)
    assert not np.allclose(trained, model(x).detach().numpy(), atol=1e-5)


def test_ranges_freeze_in_the_last_part_of_the_training(tiny):
    technique = TECHNIQUES.make("quantize.aware", epochs=10, freeze=0.7)
    frozen = []

    class Watched(nn.Module):
        def apply(self, function):
            frozen.append(function.__name__)

    seen = []
    for epoch in range(10):
        technique._freeze_ranges(Watched(), _record(epoch))
        seen.append(len(frozen))
    assert seen == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert set(frozen) == {"disable_observer"}


def _record(epoch):
    fields = dict.fromkeys(EpochRecord.__dataclass_fields__, 0)
    return EpochRecord(**{**fields, "epoch": epoch})
