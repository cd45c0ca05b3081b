"""Importances, rankings, batch norms' statistics and the proof, on layers made by hand."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fettle.compress.prune._bn import restimate
from fettle.compress.prune._groups import ChannelGraph
from fettle.compress.prune._importance import gather_gradients, scorer, scores_of
from fettle.compress.prune._proof import Trial, provable
from fettle.compress.prune._ranking import Ranking
from fettle.compress.prune.channels import remove_channels
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def two_convolutions(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)).eval()
    nn.init.uniform_(model[1].weight, 0.5, 1.5)
    return model


def parts(model):
    """Weights of the first group in float64, one row a channel: writer, norm, reader."""
    writer = model[0].weight.double().flatten(1)
    reader = model[3].weight.double().transpose(0, 1).flatten(1)
    return [t.detach() for t in (writer, model[1].weight.double()[:, None], reader)]


def scored(model, kind):
    _, groups = ChannelGraph.of(model, (X,))
    return scores_of(groups, scorer(kind))["0"]


def relative(scores):
    return scores / scores.mean()


def test_norms():
    model = two_convolutions()
    for kind, power in (("l1", 1), ("l2", 2)):
        expected = sum(part.abs().pow(power).sum(1) for part in parts(model))
        torch.testing.assert_close(scored(model, kind), relative(expected), rtol=1e-5, atol=0)


def test_scale_of_batch_norm():
    model = two_convolutions()
    expected = relative(model[1].weight.detach().double().abs())
    torch.testing.assert_close(scored(model, "bn_scale"), expected, rtol=1e-5, atol=0)


def test_geometric_median():
    model = two_convolutions()
    filters = parts(model)[0].numpy()
    expected = [sum(np.linalg.norm(one - other) for other in filters) for one in filters]
    torch.testing.assert_close(
        scored(model, "fpgm"), relative(torch.tensor(expected)), rtol=1e-5, atol=0
    )


def test_taylor_is_the_loss_that_goes_with_a_channel(tiny):
    model = two_convolutions()
    gather_gradients(model, tiny, 1, 16)
    batch = next(iter(tiny.batches("train", 16)))
    exact = copy.deepcopy(model).double()
    loss = tiny.loss(exact(torch.from_numpy(batch.inputs["input"]).double()), batch)
    exact.zero_grad()
    loss.backward()
    products = [p.detach() * p.grad for p in (exact[0].weight, exact[1].weight, exact[3].weight)]
    expected = (
        products[0].flatten(1).sum(1).abs()
        + products[1].abs()
        + products[2].transpose(0, 1).flatten(1).sum(1).abs()
    )
    torch.testing.assert_close(scored(model, "taylor"), relative(expected), rtol=1e-3, atol=1e-5)


def test_random_follows_the_seed(tiny):
    model = two_convolutions()
    make = TECHNIQUES.make("prune.channels", importance="random", round_to=1, epochs=0)
    first, second = (make(model, tiny).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def chain(widths):
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 4)).eval()


def chosen(ranking, scores, ratio=0.5):
    """Channels left of two linear layers in a row and a convolution, each of width 8."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 8), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
        nn.Linear(8, 4),
    ).eval()  # fmt: skip
    _, groups = ChannelGraph.of(model, (X,))
    found = {group.root: torch.tensor(scores[group.root]).double() for group in groups}
    gone = Ranking(ranking, 1).choose(groups, found, ratio, dict.fromkeys(found, 8))
    return {root: 8 - len(gone.get(root, ())) for root in found}


def test_rankings_compare_what_they_say():
    low, middle, high = ([base + i for i in range(8)] for base in (0.0, 100.0, 200.0))
    scores = {"0": high, "2": low, "4": middle}
    assert chosen("local", scores) == {"0": 4, "2": 4, "4": 4}
    assert chosen("global", scores) == {"0": 8, "2": 1, "4": 4}  # no layer vanishes
    assert chosen("isomorphic", scores) == {"0": 4, "2": 1, "4": 8}


def test_no_layer_vanishes():
    model = chain([64, 8, 24])
    remove_channels(model, (X,), 0.95, "l2", Ranking("global", 1))
    assert min(m.out_features for m in model if isinstance(m, nn.Linear)) >= 1
    assert model(X).shape == (3, 4)


def test_gradual_removal_reaches_the_ratio(tiny):
    model = chain([64, 40, 20])
    technique = TECHNIQUES.make("prune.channels", ratio=0.6, steps=4, round_to=1, epochs=2)
    pruned = technique(model, tiny)
    assert [m.out_features for m in pruned if isinstance(m, nn.Linear)] == [16, 8, 4]


def test_statistics_are_those_of_all_examples(tiny):
    model = two_convolutions()
    restimate(model, tiny, 3, 8)
    seen = [torch.from_numpy(b.inputs["input"]) for b in itertools.islice(
        tiny.batches("train", 8), 3)]  # fmt: skip
    y = model[0](torch.cat(seen)).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean.double(), y.mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), y.var(1), rtol=1e-4, atol=1e-6)
    assert not any(module.training for module in model.modules())


def test_statistics_of_no_batches_stay(tiny):
    model = two_convolutions()
    before = model[1].running_mean.clone()
    restimate(model, tiny, 0)
    assert torch.equal(model[1].running_mean, before)


class FixedSplit(nn.Module):
    """Reads the middle of its channels by fixed numbers, so that none may go."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 16), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        x = x[:, 4:12] * x[:, [0, 1, 2, 3, 12, 13, 14, 15]]
        return self.head(self.second(x).relu())


def test_what_can_not_be_proven_stays():
    torch.manual_seed(0)
    model = FixedSplit().eval()
    _, gone = remove_channels(model, (X,), 0.25, "l2", Ranking("local", 1))
    assert model.first.out_features == 16
    assert model.second.out_features == 12
    assert list(gone) == ["second"]


def test_a_wrong_removal_does_not_hold():
    model = chain([64, 8, 8])
    graph, groups = ChannelGraph.of(model, (X,))
    assert Trial(graph).holds({groups[0].root: [1, 2]})
    assert not Trial(graph).holds({"5": [0]})  # the classes
    assert provable(graph, groups, {}) == {}


def test_shared_weights_stay_shared():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8),
        nn.ReLU(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    model[5].weight = model[3].weight
    try:
        remove_channels(model, (X,), 0.5, "l2", Ranking("local", 1))
    except ModelError:
        return
    assert model[5].weight is model[3].weight
    assert model(X).shape == (3, 4)


class Dead(nn.Module):
    """No channel of the first layer gets through on any example; a branch is switched off."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(64, 8)
        self.head, self.weight = nn.Linear(16, 4), nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        x = x.flatten(1)
        first = F.relu(self.first(x) - 1000, inplace=True)
        return self.head(torch.cat([first, self.weight * self.second(x).sub(1000).relu_()], 1))


@pytest.mark.parametrize("root", ["first", "second"])
def test_dead_channels_prove_nothing(root, monkeypatch):
    """A removal that takes its neighbour out of the reader must show there too."""
    torch.manual_seed(0)
    graph, _ = ChannelGraph.of(Dead().eval(), (X,))
    assert Trial(graph).holds({root: [1]})

    def wrong(self, root, channels):
        layer, head = self.model.get_submodule(root), self.model.head
        place = channels[0] + (0 if root == "first" else 8)
        for name in ("weight", "bias"):
            setattr(layer, name, nn.Parameter(without(getattr(layer, name), channels[0], 0)))
        head.weight = nn.Parameter(without(head.weight, place + 1, 1))

    monkeypatch.setattr(ChannelGraph, "remove", wrong)
    assert not Trial(graph).holds({root: [1]})


class Unseen(nn.Module):
    """What the second layer makes adds nothing to the outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 6)
        self.head, self.other = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        return self.head(x) + 0 * self.other(self.second(x).relu())


def test_what_can_not_be_seen_in_the_outputs_is_not_proven():
    graph, _ = ChannelGraph.of(Unseen().eval(), (X,))
    assert Trial(graph).holds({"first": [1]})
    assert not Trial(graph).holds({"second": [1]})


def without(tensor, index, axis):
    kept = [i for i in range(tensor.shape[axis]) if i != index]
    return tensor.detach().index_select(axis, torch.tensor(kept))
