"""Torchvision's networks with random weights but lived-in batch norms.

Fresh running statistics let the activations of deep, thin networks fade to nothing, so that
quantization error is all that comes out; a few batches in training mode give each layer inputs of
ordinary size. Speed is that of any weights.
"""

import torch
from torch import nn

from fettle import models


def _lived_in(name: str) -> nn.Module:
    model = models.load(f"torchvision:{name}", seed=0)
    generator = torch.Generator().manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
        norm.reset_running_stats()
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(2 * torch.rand(16, 3, 224, 224, generator=generator) - 1)
    return model.eval()


def resnet18() -> nn.Module:
    """Return ResNet-18."""
    return _lived_in("resnet18")


def resnet50() -> nn.Module:
    """Return ResNet-50."""
    return _lived_in("resnet50")


def mobilenet_v2() -> nn.Module:
    """Return MobileNetV2."""
    return _lived_in("mobilenet_v2")


def mobilenet_v3_small() -> nn.Module:
    """Return MobileNetV3-small."""
    return _lived_in("mobilenet_v3_small")
