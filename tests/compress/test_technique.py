from dataclasses import dataclass

import pytest
import torch
from torch import nn

from fettle.compress import Technique
from fettle.core.errors import CheckFailed


@dataclass(frozen=True, kw_only=True)
class Replace(Technique):
    """Returns another model, whatever comes in."""

    by: object = None

    def apply(self, model, task):
        return self.by(model)


class Spoiled(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full((len(x), 4), self.value)


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_outputs_that_are_no_numbers_are_noticed(tiny, value):
    with pytest.raises(CheckFailed, match="not finite"):
        Replace(by=lambda model: Spoiled(value))(net(), tiny)


@pytest.mark.parametrize("classes", [3, 5])
def test_outputs_of_another_shape_are_noticed(tiny, classes):
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    with pytest.raises(CheckFailed, match=rf"shape \(2, {classes}\)"):
        Replace(by=lambda model: other)(net(), tiny)


def test_a_technique_works_on_a_copy(tiny):
    model = net()

    def vandal(copied):
        assert copied is not model
        nn.init.zeros_(copied[1].weight)
        return copied

    result = Replace(by=vandal)(model, tiny)
    assert result[1].weight.abs().sum() == 0
    assert model[1].weight.abs().sum() > 0
