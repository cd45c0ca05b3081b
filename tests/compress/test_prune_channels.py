import copy

import numpy as np
import pytest
import torch
from torch import nn

from fettle import models
from fettle.compress.prune._ranking import Ranking
from fettle.compress.prune.channels import remove_channels
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES

X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def chain(norm=True, width=16, seed=0):
    """Two convolutions in a row and a head: one group of channels for each convolution."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, width, 3, bias=not norm), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.ReLU()]
    if norm:
        layers.insert(1, nn.BatchNorm2d(width))
        for tensor in layers[1].state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 4)).eval()


def kept(before, after, inputs=None):
    """Return which output channels of a convolution are left, found by their weights."""
    rows = before.weight.detach() if inputs is None else before.weight.detach()[:, inputs]
    return [int((rows == row).flatten(1).all(1).nonzero()[0]) for row in after.weight.detach()]


def norms(model):
    """Squared L2 norm of each channel of the first convolution: its weights, and its readers'."""
    first, second = model[0].weight.double(), model[2].weight.double()
    return (first.pow(2).sum((1, 2, 3)) + second.pow(2).sum((0, 2, 3))).detach().numpy()


def test_removing_equals_masking():
    model = chain()
    pruned = copy.deepcopy(model)
    remove_channels(pruned, (X,), 0.5, "l2", Ranking("local", 1))
    first = kept(model[0], pruned[0])
    second = kept(model[3], pruned[3], first)
    assert (len(first), len(second)) == (8, 4)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for layer, left in ((masked[1], first), (masked[3], second)):
            gone = [i for i in range(len(layer.bias)) if i not in left]
            layer.weight[gone] = 0
            layer.bias[gone] = 0
        torch.testing.assert_close(pruned(X), masked(X), rtol=1e-5, atol=1e-5)


def test_the_weakest_go():
    model = chain(norm=False)
    pruned = copy.deepcopy(model)
    remove_channels(pruned, (X,), 0.25, "l2", Ranking("local", 1))
    left = kept(model[0], pruned[0])
    assert sorted(left) == sorted(np.argsort(norms(model))[4:].tolist())


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.7])
def test_channel_counts_are_multiples(tiny, ratio, round_to):
    technique = TECHNIQUES.make("prune.channels", ratio=ratio, round_to=round_to, epochs=0)
    model = models.load("cifar:resnet8", signature=tiny.signature)
    pruned = technique(model, tiny)
    convolutions = [m for m in pruned.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.out_channels % round_to == 0 for m in convolutions)
    assert all(m.out_channels >= round_to for m in convolutions)
    assert convolutions[0].in_channels == 1
    assert pruned.linear.out_features == 4


def test_it_really_shrinks(tiny):
    technique = TECHNIQUES.make("prune.channels", ratio=0.5, epochs=0)
    model = models.load("cifar:resnet8", signature=tiny.signature)
    pruned = technique(model, tiny)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, pruned))
    assert after < 0.35 * before  # half of the inputs and half of the outputs
    assert not any((p == 0).all() for p in pruned.parameters() if p.dim() > 1)


def test_a_ratio_of_zero_changes_nothing(tiny):
    model = models.load("cifar:resnet8", signature=tiny.signature)
    same = TECHNIQUES.make("prune.channels", ratio=0, epochs=0)(model, tiny)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in model.state_dict().items())


def test_fine_tuning_changes_weights_and_not_shapes(tiny):
    model = models.load("cifar:resnet8", signature=tiny.signature)
    cut, tuned = (
        TECHNIQUES.make("prune.channels", epochs=epochs)(model, tiny).state_dict()
        for epochs in (0, 1)
    )
    assert {k: v.shape for k, v in cut.items()} == {k: v.shape for k, v in tuned.items()}
    assert not torch.equal(cut["conv1.weight"], tuned["conv1.weight"])


def test_a_model_without_hidden_layers_is_refused(tiny):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ModelError, match="no layer whose width"):
        TECHNIQUES.make("prune.channels")(model, tiny)
