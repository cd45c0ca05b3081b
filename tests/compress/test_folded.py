import pytest
import torch
from torch import nn

from fettle import models
from fettle.compress._folded import folded
from fettle.compress._teacher import Teacher


class Branching(nn.Module):
    """Can't be traced: it looks at what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.layer(x).mean((2, 3)) * (2 if x.sum() > 0 else 3)


class Twice(nn.Module):
    """One convolution before two batch norms: folding both would be wrong."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(2))

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.layer(x))
        return x.mean((2, 3))


def settled(module, channels=3):
    """With batch norms that have seen something."""
    torch.manual_seed(0)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(8, channels, 16, 16) * 2 + 1)
    return module.eval().requires_grad_(False)


def norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def test_batch_norms_are_folded_and_answers_stay(tiny):
    module = settled(models.load("cifar:resnet8x0.5", signature=tiny.signature, seed=3), 1)
    images = torch.randn(5, 1, 16, 16)
    quick = folded(module, (images,))
    assert norms(module) == 7
    assert norms(quick) == 0
    torch.testing.assert_close(quick(images), module(images), rtol=1e-4, atol=1e-4)
    few = images[:2]
    torch.testing.assert_close(quick(few), module(few), rtol=1e-4, atol=1e-4)
    assert quick.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert module.conv1.weight.is_contiguous()


@pytest.mark.parametrize("made", [Branching, Twice])
def test_what_cant_be_folded_is_laid_out_alone(made):
    module, images = settled(made()), torch.randn(4, 3, 16, 16)
    quick = folded(module, (images,))
    assert quick is not module
    assert norms(quick) == norms(module)
    torch.testing.assert_close(quick(images), module(images), rtol=1e-5, atol=1e-5)


def test_other_networks_stay_as_they_are():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.layer(x), x

    assert folded(nn.Linear(3, 2), (torch.ones(1, 3),)) is None
    assert folded(Pair(), (torch.ones(1, 3, 8, 8),)) is None
    broken = nn.Conv2d(3, 4, 3)
    broken.weight.data[:] = torch.nan
    assert folded(broken, (torch.ones(1, 3, 8, 8),)) is None


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_teacher_is_asked_in_its_faster_form(tiny, precision):
    module = settled(models.load("cifar:resnet8x0.5", signature=tiny.signature, seed=3), 1)
    teacher = Teacher(module, tiny, precision)
    batch = next(tiny.epoch(0, 0, 16))
    images = (torch.tensor(batch.inputs["input"]),)
    taught = teacher(images, batch)
    assert norms(teacher.memory.quick) == 0
    loose = 1e-4 if precision == "32" else 3e-2
    torch.testing.assert_close(taught, module(*images), rtol=loose, atol=loose)
