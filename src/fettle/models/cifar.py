"""The CIFAR ResNets of He et al.: 6n + 2 layers, three stages, shortcuts without parameters.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. The
shortcut is their option A: strided subsampling, new channels filled with zeros.

Names are `resnet20`, `resnet56`, … and with a width factor `resnet20x0.5`. The names of weights
are those of akamaster/pytorch_resnet_cifar10.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.core.errors import UnknownName

NAMES = tuple(
    f"resnet{depth}{width}" for depth in (8, 14, 20, 32, 44, 56, 110) for width in ("", "x0.5")
)
_NAME = re.compile(r"resnet(\d{1,4})(?:x(\d{1,2}(?:\.\d{1,3})?))?")


class Shortcut(nn.Module):
    """Takes every `stride`-th pixel, and pads `before` and `after` channels of zeros.

    Pruning tools take padding for an element-wise operation: they believe that channel i stays
    channel i, while it becomes i + `before`. Prune only channels that no shortcut carries.
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (n, c, h, w) as (n, before + c + after, ⌈h/stride⌉, ⌈w/stride⌉)."""
        sampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(sampled, (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        new = channels - channels_in
        changes = stride != 1 or new
        self.shortcut = Shortcut(stride, new // 2, new - new // 2) if changes else nn.Identity()

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
