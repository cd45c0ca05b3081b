"""Following coupled channels: what Torch-Pruning can't tell is left without a mapping."""

import torch
from torch import nn
from torch_pruning.dependency import index_mapping

from fettle.compress.prune import _coupling


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x):
        return self.head(torch.cat([self.left(x), self.right(x)], 1))


def members(graph, layer, channels):
    return {
        (item.dep.target.module, index)
        for item in _coupling.follow(graph, layer, channels)
        for index in item.idxs
        if isinstance(item.dep.target.module, nn.Conv2d)
    }


def test_a_concatenation_shifts_channels():
    net = Joined()
    graph = _coupling.trace(net, (torch.zeros(2, 3, 4, 4),), plain=False)
    assert members(graph, net.right, [1]) == {(net.right, 1), (net.head, 5)}


def test_a_concatenation_of_unknown_widths_does_not_stop_the_trace(monkeypatch):
    """What torch-pruning 1.6 does in the last stages of torchvision's Swin-S."""

    def fails(graph, node):
        raise TypeError("unsupported operand type(s) for +: 'int' and 'NoneType'")

    monkeypatch.setattr(index_mapping, "update_concat_index_mapping", fails)
    net = Joined()
    graph = _coupling.trace(net, (torch.zeros(2, 3, 4, 4),), plain=False)
    assert (net.right, 1) in members(graph, net.right, [1])
    assert index_mapping.update_concat_index_mapping is fails
