"""The CIFAR ResNets of He et al.: 6n + 2 layers, three stages, shortcuts without parameters.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. The
shortcut is their option A: strided subsampling, new channels filled with zeros.

Names are `resnet20`, `resnet56`, … and with a width factor `resnet20x0.5`. The names of weights
are those of akamaster/pytorch_resnet_cifar10.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.core.errors import UnknownName

NAMES = tuple(
    f"resnet{depth}{width}" for depth in (8, 14, 20, 32, 44, 56, 110) for width in ("", "x0.5")
)
_NAME = re.compile(r"resnet(\d{1,4})(?:x(\d{1,2}(?:\.\d{1,3})?))?")


class Shortcut(nn.Module):
    """Takes every `stride`-th pixel; channel j of its output is channel `source[j]` of its input.

    Where `source[j]` is -1 the output is zero: at first, those are padding at both ends. Tools for
    structured pruning take padding for an element-wise operation, in which channel i stays channel
    i. Tell them that this is a layer whose inputs and outputs go by `drop_inputs`, `drop_outputs`.
    """

    def __init__(self, stride: int, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stride, self.in_channels = stride, channels_in
        before, after = (channels - channels_in) // 2, -(-(channels - channels_in) // 2)
        self.source = (*(-1,) * before, *range(channels_in), *(-1,) * after)

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return len(self.source)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (n, in_channels, h, w) as (n, out_channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        sampled = x[:, :, :: self.stride, :: self.stride]
        before = self.source.index(0) if 0 in self.source else 0
        after = self.out_channels - self.in_channels - before
        if self.source == (*(-1,) * before, *range(self.in_channels), *(-1,) * after):
            return F.pad(sampled, (0, 0, 0, 0, before, after))
        with_zero = F.pad(sampled, (0, 0, 0, 0, 0, 1))  # (n, in_channels + 1, …)
        rows = [self.in_channels if i < 0 else i for i in self.source]
        return with_zero.index_select(1, torch.tensor(rows, device=x.device))

    def drop_outputs(self, indices: Collection[int]) -> None:
        """Remove these channels of the output."""
        gone = set(indices)
        self.source = tuple(i for j, i in enumerate(self.source) if j not in gone)

    def drop_inputs(self, indices: Collection[int]) -> None:
        """Remove these channels of the input; outputs that took them become zero."""
        left = [i for i in range(self.in_channels) if i not in set(indices)]
        place = {old: new for new, old in enumerate(left)}
        self.source = tuple(place.get(i, -1) for i in self.source)
        self.in_channels = len(left)


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        changes = stride != 1 or channels != channels_in
        self.shortcut = Shortcut(stride, channels_in, channels) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Images (n, in_channels, h, w) of any size to logits (n, classes)."""

    def __init__(self, blocks: int, width: float, classes: int, in_channels: int) -> None:
        super().__init__()
        widths = [scaled(base, width) for base in (16, 32, 64)]
        self.conv1 = _conv(in_channels, widths[0], 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(blocks, widths[0], widths[0], 1)
        self.layer2 = _stage(blocks, widths[0], widths[1], 2)
        self.layer3 = _stage(blocks, widths[1], widths[2], 2)
        self.linear = nn.Linear(widths[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def build(name: str, classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """Return the untrained network called `name`.

    Raises:
        UnknownName: the name is not `resnet` and 6n + 2 layers, with a width factor of
            0.1 … 16 or without.
    """
    match = _NAME.fullmatch(name)
    depth, width = (int(match[1]), float(match[2] or 1)) if match else (0, 1.0)
    if depth < 8 or (depth - 2) % 6 or not 0.1 <= width <= 16:
        raise UnknownName("model", f"cifar:{name}", [f"cifar:{known}" for known in NAMES])
    return CifarResNet((depth - 2) // 6, width, classes, in_channels)


def scaled(channels: int, width: float) -> int:
    """Return `channels · width`, rounded to a multiple of 4, at least 4."""
    return max(4, round(channels * width / 4) * 4)


def _conv(channels_in: int, channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)


def _stage(blocks: int, channels_in: int, channels: int, stride: int) -> nn.Sequential:
    first = Block(channels_in, channels, stride)
    return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(blocks - 1)))
