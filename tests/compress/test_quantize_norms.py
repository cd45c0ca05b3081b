"""Batch norms in an exported graph: modes, freezing, folding, against torch's own modules."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fettle.compress.quantize import _pt2e
from fettle.compress.quantize._norms import Freeze, fold_norms, is_frozen, set_training

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def lived(norm):
    generator = torch.Generator().manual_seed(1)
    norm.running_mean.uniform_(-1, 1, generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    if norm.affine:
        norm.weight.data.uniform_(-1, 1, generator=generator)
        norm.bias.data.uniform_(-1, 1, generator=generator)
    return norm


def net(**norm):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), lived(nn.BatchNorm2d(4, **norm)), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.25), nn.Flatten(), nn.Linear(64, 5)).eval()


def prepared(model):
    graph = _pt2e.prepare_training(copy.deepcopy(model), (X,))
    graph(X)
    return graph


def statistics(graph):
    return {k: v.clone() for k, v in graph.state_dict().items() if "running" in k}


def targets(graph):
    return [str(node.target) for node in graph.graph.nodes]


def test_running_statistics_follow_torchs_own_rule():
    """μ ← (1 − m) μ + m · mean, with the norm's own momentum and the unbiased variance."""
    model = net(momentum=0.3)
    graph = prepared(model)
    before = statistics(graph)
    set_training(graph, True)
    seen = []
    node = next(n for n in graph.graph.nodes if "batch_norm" in str(n.target))
    interpreter = torch.fx.Interpreter(graph)
    original = interpreter.run_node
    interpreter.run_node = lambda n: seen.append((n, original(n))) or seen[-1][1]
    interpreter.run(X)
    x = next(value for n, value in seen if n is node.args[0])
    for name, value in statistics(graph).items():
        batch = x.mean((0, 2, 3)) if "mean" in name else x.var((0, 2, 3), unbiased=True)
        torch.testing.assert_close(value, 0.7 * before[name] + 0.3 * batch)


def test_freezing_stops_statistics_and_ranges_and_uses_them():
    graph = prepared(net())
    set_training(graph, True)
    freeze = Freeze(0.5)
    freeze(graph, 4, 10)
    assert not is_frozen(graph)
    before = statistics(graph)
    graph(X)
    moved = statistics(graph)
    assert all((moved[k] != v).any() for k, v in before.items())
    freeze(graph, 5, 10)
    assert is_frozen(graph)
    scales = [q.scale.clone() for q in graph.children() if hasattr(q, "scale")]
    torch.manual_seed(0)
    first = graph(X)
    torch.manual_seed(0)
    graph(100 * X)
    torch.manual_seed(0)
    assert torch.equal(graph(X)[:2], first[:2])
    assert all(torch.equal(statistics(graph)[k], v) for k, v in moved.items())
    assert all(
        torch.equal(q.scale, s)
        for q, s in zip((q for q in graph.children() if hasattr(q, "scale")), scales, strict=True)
    )


def test_a_frozen_norm_does_not_look_at_its_batch():
    """An example's output is the same alone as beside others."""
    graph = prepared(nn.Sequential(*list(net())[:3], nn.Flatten(), nn.Linear(64, 5)))
    set_training(graph, True)
    assert not torch.allclose(graph(X)[:2], graph(X[:2]), atol=1e-3)
    Freeze(0.0)(graph, 1, 10)
    torch.testing.assert_close(graph(X)[:2], graph(X[:2]), rtol=0, atol=1e-5)


def test_a_new_epoch_keeps_what_is_frozen():
    """The mark is a buffer: a run that continues from a checkpoint is frozen, too."""
    graph, other = prepared(net()), prepared(net())
    Freeze(0.0)(graph, 1, 10)
    other.load_state_dict(graph.state_dict())
    set_training(other, False)
    set_training(other, True)
    before = statistics(other)
    other(X)
    assert all(torch.equal(statistics(other)[k], v) for k, v in before.items())


def test_dropout_keeps_its_rate_and_goes_on_after_freezing():
    graph = prepared(net())
    set_training(graph, True)
    Freeze(0.0)(graph, 1, 10)
    node = next(n for n in graph.graph.nodes if "dropout" in str(n.target))
    assert node.args[1:] == (0.25, True)
    set_training(graph, False)
    assert node.args[1:] == (0.25, False)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_fold_computes_the_same(affine, bias):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same", bias=bias),
        lived(nn.BatchNorm2d(4, eps=0.05, affine=affine)),
        nn.Flatten(),
        nn.Linear(144, 6, bias=bias),
        lived(nn.BatchNorm1d(6, eps=0.01)),
    ).eval()
    graph = _pt2e.capture(model, (X,))
    fold_norms(graph)
    assert not [t for t in targets(graph) if "batch_norm" in t]
    torch.testing.assert_close(graph(X), model(X), rtol=1e-5, atol=1e-5)


class Shared(nn.Module):
    """One convolution, read by two norms: a fold into its own weight would break the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([lived(nn.BatchNorm2d(3)), lived(nn.BatchNorm2d(3, eps=1.0))])

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.conv(x))
        return x.mean((2, 3))


def test_shared_weights_are_folded_for_each_use():
    model = Shared().eval()
    graph = _pt2e.capture(model, (X,))
    fold_norms(graph)
    assert not [t for t in targets(graph) if "batch_norm" in t]
    torch.testing.assert_close(graph(X), model(X), rtol=1e-5, atol=1e-5)
    converted = _pt2e.convert(prepared(model))
    assert (converted(X) - model(X)).abs().mean() < 0.05 * model(X).abs().mean()


class Both(nn.Module):
    """The convolution's own result is read beside its norm: it can't be folded."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), lived(nn.BatchNorm2d(3))

    def forward(self, x):
        y = self.conv(x)
        return (self.norm(y) + F.relu(y)).mean((2, 3))


def test_a_result_that_others_read_is_left_alone():
    model = Both().eval()
    graph = _pt2e.capture(model, (X,))
    fold_norms(graph)
    assert [t for t in targets(graph) if "batch_norm" in t]
    torch.testing.assert_close(graph(X), model(X))


def test_a_norm_over_positions_is_not_folded_into_channels():
    """After a linear layer on (n, positions, features), axis 1 is not the layer's output."""
    model = nn.Sequential(nn.Flatten(2), nn.Linear(36, 3), lived(nn.BatchNorm1d(3))).eval()
    graph = _pt2e.capture(model, (X,))
    fold_norms(graph)
    assert [t for t in targets(graph) if "batch_norm" in t]
    torch.testing.assert_close(graph(X), model(X))
