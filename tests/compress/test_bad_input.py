"""What is wrong with data or models, tried on every technique: an error that says so, or truth.

Each cell raises a FettleError that says what came, or its result is compared with the original.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from fettle.core.arrays import Batch
from fettle.core.context import Context
from fettle.core.errors import DataError, InputError, ModelError
from fettle.core.recipe import Recipe
from fettle.core.shelf import TECHNIQUES
from fettle.testing import Recorder, TinyTask, sample

QUICK = {"epochs": 1, "steps": 2, "batch_size": 16, "round_to": 1}
ON_ATTENTION = ("prune.blocks", "prune.heads", "prune.ffn")
EVERY = tuple(TECHNIQUES.names())
OTHERS_THAN_LINEAR = ("quantize.static", "distill.features", *ON_ATTENTION)
UNTRAINED = ("prune.magnitude", "prune.semi_structured", "prune.channels")


def technique(name, context=None, **knobs):
    """Return the technique `name`, which may have knobs in brackets, as quick as it can be."""
    (step,) = Recipe.parse(name).steps
    known = {knob.name for knob in step.knobs()}
    quick = {k: v for k, v in {**QUICK, **knobs}.items() if k in known}
    return step.but(**quick, context=context or Context())


class Spoiled(TinyTask):
    """A task of images that `change` has had its hands on, in some splits."""

    def __init__(self, change, splits=("train", "calibrate", "select", "test"), **options):
        super().__init__(**options)
        self.change, self.splits = change, splits

    def batches(self, split, batch_size=256):
        for batch in super().batches(split, batch_size):
            yield self._spoiled(batch) if split in self.splits else batch

    def epoch(self, *args, **options):
        for batch in super().epoch(*args, **options):
            yield self._spoiled(batch) if "train" in self.splits else batch

    def _spoiled(self, batch):
        return dataclasses.replace(
            batch, inputs={k: self.change(v.copy()) for k, v in batch.inputs.items()}
        )


def first_is(value):
    def change(images):
        images[0, 0, 0, 0] = value
        return images

    return change


def net(channels=1):
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3)]
    return nn.Sequential(
        *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    ).eval()


def subject(name):
    """Return a sound model that technique `name` works on, and options for its task."""
    on_attention = name.partition("(")[0] in ON_ATTENTION
    return (sample().encoder, {"classes": 10}) if on_attention else (net(), {})


def images(task):
    (batch,) = task.batches("select", 400)
    return torch.from_numpy(batch.inputs["input"])


def outputs(model, x):
    with torch.no_grad():
        return model(x)


def error(found, expected):
    return float((found - expected).abs().mean() / expected.abs().mean())


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("name", [*EVERY, "quantize.aware(scales='learned')"])
def test_data_that_is_no_numbers(name, value):
    model, options = subject(name)
    with pytest.raises(DataError, match="`input` holds NaN or infinity"):
        technique(name)(model, Spoiled(first_is(value), **options))


@pytest.mark.parametrize(
    "name", [n for n in EVERY if n != "quantize.static"] + ["prune.channels(importance='taylor')"]
)
def test_training_data_that_is_no_numbers(name):
    """The first example inputs are sound: nothing shows before the training."""
    model, options = subject(name)
    with pytest.raises(DataError, match="`input` holds NaN or infinity"):
        technique(name)(model, Spoiled(first_is(np.nan), ["train"], **options))


@pytest.mark.parametrize("name", EVERY)
def test_weights_that_are_no_numbers(name):
    model, options = subject(name)
    model = copy.deepcopy(model)
    last = [n for n, p in model.named_parameters() if p.ndim > 1][-1]
    with torch.no_grad():
        model.get_parameter(last)[0, 0] = np.nan
    with pytest.raises(ModelError, match=f"`{last}` holds NaN or infinity"):
        technique(name)(model, TinyTask(**options))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x.repeat(3, axis=1), r"float32 \(2, 3, 8, 8\)"),
        (lambda x: x.astype(np.float64), r"float64 \(2, 1, 8, 8\)"),
        (lambda x: x.astype(np.int64), r"int64 \(2, 1, 8, 8\)"),
    ],
    ids=["channels", "float64", "int64"],
)
def test_data_of_another_kind_than_the_model_takes(name, change, says):
    model, options = subject(name)
    with pytest.raises(ModelError, match=rf"`{name}` can't run the model.*{says}"):
        technique(name)(model, Spoiled(change, **options))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["tuple", "dict", "classes", "integers", "nan"])
def test_outputs_that_are_no_logits(name, kind):
    ends = {
        "tuple": (lambda y: (y, y), "returns tuple"),
        "dict": (lambda y: {"logits": y}, "returns dict"),
        "classes": (lambda y: y[:, :3], r"\(2, 3\)"),
        "integers": (lambda y: y.argmax(1, keepdim=True).repeat(1, y.shape[1]), "int64"),
        "nan": (lambda y: y / 0 * 0, "outputs on example inputs are not finite"),
    }
    end, says = ends[kind]
    inner, options = subject(name)

    class Ending(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return end(self.inner(x))

    with pytest.raises(ModelError, match=says):
        technique(name)(Ending().eval(), TinyTask(**options))


@pytest.mark.parametrize("name", EVERY)
def test_constant_data_leaves_a_model_that_computes_numbers(name):
    model, options = subject(name)
    found = technique(name)(model, Spoiled(np.zeros_like, **options))
    assert torch.isfinite(outputs(found, images(TinyTask(**options)))).all()


def test_constant_data_leaves_running_statistics_alone():
    """Their variance would be 0, and the norm would multiply by 1/√ε."""
    found = technique("prune.channels", epochs=0)(net(), Spoiled(np.zeros_like))
    assert torch.equal(found[1].running_var, torch.ones(4))


class OneToTrain(TinyTask):
    """A task with one training example."""

    def size(self, split):
        return 1 if split == "train" else super().size(split)

    def batches(self, split, batch_size=256):
        if split != "train":
            yield from super().batches(split, batch_size)
            return
        batch = next(super().batches(split, 1))
        yield Batch({"input": batch.inputs["input"][:1]}, batch.targets[:1])

    def epoch(self, *args, **options):
        return self.batches("train")


@pytest.mark.parametrize("name", [n for n in EVERY if n not in OTHERS_THAN_LINEAR])
def test_one_training_example(name):
    """Batch norms behind a linear layer have no spread to measure; others do."""
    flat = [nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)]
    with pytest.raises(DataError, match=r"one example|two examples"):
        technique(name)(nn.Sequential(*flat).eval(), OneToTrain())


class Twice(nn.Module):
    """One convolution that runs twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.twice(self.twice(self.stem(x).relu()).relu()).relu().mean((2, 3)))


class Tied(nn.Module):
    """One weight in two linear layers, the other way round in the second."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(64, 16), nn.Linear(64, 4)

    def forward(self, x):
        hidden = self.first(x.flatten(1)).relu()
        return self.head(nn.functional.linear(hidden, self.first.weight.t()))


@torch.library.custom_op("fettle_bad::turned", mutates_args=())
def turned(x: torch.Tensor) -> torch.Tensor:
    return x.flip(1).clone()


@turned.register_fake
def _(x):
    return torch.empty_like(x)


turned.register_autograd(lambda ctx, grad: grad.flip(1))


class Turned(nn.Module):
    """An operator that nobody can look into, and that mixes channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.b(turned(self.a(x).relu())).relu().mean((2, 3)))


class Spectrum(nn.Module):
    """Complex arithmetic between two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        waves = torch.fft.rfft2(self.a(x).relu())
        x = torch.fft.irfft2(waves * waves.abs().sigmoid(), s=(6, 6))
        return self.head(self.b(x).relu().mean((2, 3)))


class Branch(nn.Module):
    """Which layers run depends on the numbers that come in."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.a(x.flatten(1)).relu()
        if x.sum() > 1e9:
            x = self.b(x)
        return self.head(x)


def without_norm():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


def weighted():
    model = without_norm()
    parametrizations.weight_norm(model[2])
    return model


def masked():
    """torch's own pruning, whose weight is computed from a mask, and remembers its gradient."""
    model = without_norm()
    torch_prune.l1_unstructured(model[2], "weight", 0.5)
    model(torch.zeros(1, 1, 8, 8))
    return model


ODD = {"twice": Twice, "tied": Tied, "custom operator": Turned, "complex": Spectrum}
ODD |= {"branch": Branch, "weight norm": weighted, "mask": masked}


def odd(kind):
    torch.manual_seed(0)
    return ODD[kind]().eval()


@pytest.mark.parametrize("name", ["quantize.static", "quantize.aware"])
@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "branch"])
def test_odd_models_are_quantized_within_its_error(name, kind):
    model, task = odd(kind), TinyTask()
    found = technique(name, lr=1e-6)(model, task)
    assert error(outputs(found, images(task)), outputs(model, images(task))) < 0.03
    assert any(buffer.dtype == torch.int8 for buffer in found.buffers())


def test_a_branch_on_data_is_not_quantized():
    for quantize in (technique("quantize.static"), technique("quantize.aware")):
        with pytest.raises(ModelError, match="Data-dependent"):
            quantize(odd("branch"), TinyTask())


@pytest.mark.parametrize("kind", ODD)
def test_odd_models_lose_the_smallest_weights_and_no_others(kind):
    """The reference: half of each distinct weight by its size, in numpy."""
    model, task = odd(kind), TinyTask()
    found = technique("prune.magnitude(sparsity=0.5)", epochs=0)(model, task)
    for name, layer in found.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        before, after = (m.weight.detach().numpy() for m in (model.get_submodule(name), layer))
        limit = np.sort(np.abs(before), axis=None)[before.size // 2]
        np.testing.assert_array_equal(after, np.where(np.abs(before) < limit, 0, before))


def test_channels_of_a_tied_weight_are_not_removed():
    with pytest.raises(ModelError, match="none can be removed without changing what it computes"):
        technique("prune.channels")(odd("tied"), TinyTask())


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "tied"])
def test_odd_models_lose_channels_as_if_they_were_silent(kind):
    """The reference: the wide model, in which the biases and weights of what went are zero."""
    model, task, told = odd(kind), TinyTask(), Recorder()
    narrow = technique("prune.channels", Context(progress=told), epochs=0, bn_batches=0)(
        model, task
    )
    wide = technique("prune.magnitude(sparsity=0)", epochs=0)(model, task)
    silent = 0
    for name, layer in narrow.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            own = wide.get_submodule(name)
            gone = ~torch.isin(own.bias, layer.bias) if len(own.bias) > len(layer.bias) else []
            silent += int(sum(gone))
            with torch.no_grad():
                own.bias[gone] = 0
                for part in (p for n, p in own.named_parameters() if n != "bias"):
                    part[gone] = 0
    assert silent
    x = images(task)
    torch.testing.assert_close(outputs(narrow, x), outputs(wide, x), rtol=1e-4, atol=1e-5)
    if kind == "branch":
        assert any("don't run on the examples: b;" in line for line in told.lines)


@pytest.mark.parametrize("name", EVERY)
def test_a_model_without_parameters(name):
    class Free(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4] * 2

    with pytest.raises(InputError, match=r"`.*`|nothing"):
        technique(name)(Free(), TinyTask())


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("quantize.static", *ON_ATTENTION)])
def test_a_model_that_wants_no_gradients(name):
    with pytest.raises(InputError, match="requires_grad_"):
        technique(name)(net().requires_grad_(False), TinyTask())


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_model_in_training_mode_keeps_its_statistics(name):
    model = net()
    model[1].running_mean += 0.5
    found = technique(name, epochs=0, bn_batches=0)(model.train(), TinyTask())
    assert model.training
    assert not found.training
    assert torch.isin(found[1].running_mean, model[1].running_mean).all()


@pytest.mark.parametrize("name", [n for n in EVERY if n.startswith("distill")])
@pytest.mark.parametrize("fault", ["classes", "weights", "inputs"])
def test_a_teacher_that_can_not_teach(name, fault):
    teacher = net(channels=3 if fault == "inputs" else 1)
    if fault == "classes":
        teacher[-1] = nn.Linear(16, 5)
    if fault == "weights":
        nn.init.constant_(teacher[-1].weight, np.nan)
    with pytest.raises(ModelError, match="`teacher`"):
        technique(name, Context(teacher=teacher))(net(), TinyTask())
