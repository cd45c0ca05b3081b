"""What can be wrong with the data or the model, and what quantization says to it."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fettle.core.arrays import Batch, TensorSpec
from fettle.core.errors import DataError, ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.core.signature import Signature
from fettle.testing import TinyTask

NAMES = ("quantize.static", "quantize.aware", "quantize.aware(scales=learned)")


def technique(name):
    plain, learned, _ = name.partition("(")
    knobs = {} if plain == "quantize.static" else {"epochs": 1, "batch_size": 16}
    return TECHNIQUES.make(plain, **knobs, **({"scales": "learned"} if learned else {}))


class Spoiled(TinyTask):
    """A task whose calibration images are changed by `change`; training sees sound ones."""

    def __init__(self, change, **options):
        super().__init__(**options)
        self.change = change

    def batches(self, split, batch_size=256):
        for batch in super().batches(split, batch_size):
            if split == "calibrate":
                image = self.change(batch.inputs["input"].copy())
                batch = dataclasses.replace(batch, inputs={"input": image})  # noqa: PLW2901
            yield batch


def first_is(value):
    def change(images):
        images[0, 0, 0, 0] = value
        return images

    return change


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)]
    return nn.Sequential(*layers).eval()


def agreement(found, model, task):
    (batch,) = task.batches("select", 400)
    x = torch.from_numpy(batch.inputs["input"])
    with torch.no_grad():
        return (found(x).argmax(1) == model(x).argmax(1)).float().mean()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("name", ["quantize.static", "quantize.aware(scales=learned)"])
def test_values_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(DataError, match="NaN or infinity"):
        technique(name)(net(), Spoiled(first_is(value)))


@pytest.mark.parametrize("name", NAMES)
def test_constant_images_give_a_sound_model(name):
    """Their range is one value; scales stay positive, and outputs finite."""
    found = technique(name)(net(), Spoiled(np.zeros_like))
    x = torch.from_numpy(next(TinyTask().batches("select", 8)).inputs["input"])
    assert torch.isfinite(found(x)).all()


def test_one_example_is_enough():
    """It is repeated for the capture, which would take a batch of one for a constant."""
    task = Spoiled(lambda images: images[:1])
    found = technique("quantize.static")(net(), task)
    assert agreement(found, net(), TinyTask()) > 0.8


def test_images_of_another_shape_are_refused():
    with pytest.raises(ModelError, match="can't run the model on the task's inputs"):
        technique("quantize.static")(net(), Spoiled(lambda images: images[..., :6]))


class Tied(nn.Module):
    """One weight, read by two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1)).relu()).relu())


@pytest.mark.parametrize("name", NAMES)
def test_shared_weights_stay_sound(tiny, name):
    torch.manual_seed(0)
    model = Tied().eval()
    assert agreement(technique(name)(model, tiny), model, tiny) > 0.6


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        y = self.linear(x.flatten(1))
        return y if x.sum() > 0 else -y


@pytest.mark.parametrize("name", NAMES)
def test_a_branch_on_data_is_refused(tiny, name):
    with pytest.raises(ModelError, match="Data-dependent"):
        technique(name)(Branch(), tiny)


class Custom(nn.Module):
    """An operator that torch.export can't look into."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        return self.linear(torch.from_numpy(np.tanh(x.flatten(1).numpy())))


def test_code_outside_torch_is_refused(tiny):
    with pytest.raises(ModelError, match="can't be captured"):
        technique("quantize.static")(Custom(), tiny)


@torch.library.custom_op("fettle_test::halve", mutates_args=())
def halve(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@halve.register_fake
def _(x):
    return torch.empty_like(x)


halve.register_autograd(lambda ctx, grad: grad / 2)


class Halving(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(64, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(halve(self.first(x.flatten(1))))


@pytest.mark.parametrize("name", NAMES)
def test_a_custom_operator_stays_in_float(tiny, name):
    torch.manual_seed(0)
    model = Halving().eval()
    found = technique(name)(model, tiny)
    assert agreement(found, model, tiny) > 0.8
    assert any("halve" in str(node.target) for node in found.graph.nodes)


class Spectrum(nn.Module):
    """Complex numbers on the way: the layers on both sides are quantized, these are not."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 5, dtype=torch.complex64)
        self.head = nn.Linear(80, 4)

    def forward(self, x):
        frequencies = self.mix(torch.fft.rfft(x))
        return self.head(torch.cat([frequencies.real, frequencies.imag], 3).flatten(1))


def test_complex_layers_stay_as_they_are(tiny):
    torch.manual_seed(0)
    model = Spectrum().eval()
    found = technique("quantize.static")(model, tiny)
    quantized = [b for b in found.buffers() if b.dtype == torch.int8]
    assert [b.shape for b in quantized] == [(4, 80)]
    assert agreement(found, model, tiny) > 0.8


class Tokens(TinyTask):
    """A task whose inputs are token numbers."""

    @property
    def signature(self):
        return Signature((TensorSpec("input", (None, 64), "int64"),), 4)

    def batches(self, split, batch_size=256):
        for batch in super().batches(split, batch_size):
            ids = (np.abs(batch.inputs["input"]).reshape(len(batch), 64) * 9).astype(np.int64) % 20
            yield Batch({"input": ids}, batch.targets)

    def epoch(self, seed, epoch, batch_size, shard=(0, 1)):
        for batch in super().epoch(seed, epoch, batch_size, shard):
            ids = (np.abs(batch.inputs["input"]).reshape(len(batch), 64) * 9).astype(np.int64) % 20
            yield Batch({"input": ids}, batch.targets)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 16), nn.Linear(16, 4)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(1))


@pytest.mark.parametrize("name", NAMES)
def test_integer_inputs_are_left_as_they_are(name):
    torch.manual_seed(0)
    model, task = Reader().eval(), Tokens()
    found = technique(name)(model, task)
    assert [b.shape for b in found.buffers() if b.dtype == torch.int8] == [(4, 16)]
    assert agreement(found, model, task) > 0.5


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.lstm(x[:, 0])[0][:, -1])


@pytest.mark.parametrize("name", NAMES)
def test_recurrent_layers_stay_in_float(tiny, name):
    torch.manual_seed(0)
    model = Recurrent().eval()
    found = technique(name)(model, tiny)
    assert [b.shape for b in found.buffers() if b.dtype == torch.int8] == [(4, 16)]
    assert any("lstm" in str(node.target) for node in found.graph.nodes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_float_types_are_named(tiny, dtype):
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 4, dtype=dtype)

        def forward(self, x):
            return self.linear(x.flatten(1).to(dtype)).float()

    with pytest.raises(ModelError, match="no float32"):
        technique("quantize.static")(Cast(), tiny)
