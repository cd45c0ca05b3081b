"""A network of thin depthwise blocks for digits: the kind that static quantization hurts."""

from torch import nn


def _block(width: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(),
        nn.Conv2d(width, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


def thin_mobilenet() -> nn.Module:
    """Return it: images of 1×8×8, ten classes."""
    stem = [nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    blocks = [_block(8, 12, 1), _block(12, 16, 2), _block(16, 16, 1), _block(16, 24, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)]
    return nn.Sequential(*stem, *blocks, *head)
