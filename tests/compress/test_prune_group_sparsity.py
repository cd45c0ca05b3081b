import pytest
import torch
from torch import nn

from fettle.compress.prune.group_sparsity import GroupDecay, slices_of, speeds
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


def test_speeds_against_the_formula():
    norms = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert speeds(norms).tolist() == [16, 4, 1]
    assert speeds(torch.ones(3)).tolist() == [1, 1, 1]


def test_one_step_against_the_formula():
    model = net()
    first, last = (model[i].weight.detach().double().clone() for i in (1, 3))
    norms = (first.pow(2).sum(1) + last.pow(2).sum(0)).sqrt()
    factors = 1 - 0.01 * 2 ** (4 * (norms.max() - norms) / (norms.max() - norms.min()))
    GroupDecay(slices_of(model, (X,)), 0.01)(model, 1, 1)
    torch.testing.assert_close(model[1].weight.double(), first * factors[:, None])
    torch.testing.assert_close(model[3].weight.double(), last * factors)


def test_channels_part_and_shapes_stay(tiny):
    model = net()
    technique = TECHNIQUES.make("prune.group_sparsity", strength=1, epochs=3, lr=0.01)
    trained = technique(model, tiny)
    assert trained[1].weight.shape == model[1].weight.shape

    def spread(module):
        norms = module[1].weight.detach().norm(dim=1)
        return float(norms.max() / norms.min())

    assert spread(trained) > spread(model)


def test_a_model_without_hidden_layers_is_refused(tiny):
    with pytest.raises(ModelError, match="no layer"):
        TECHNIQUES.make("prune.group_sparsity")(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), tiny)
