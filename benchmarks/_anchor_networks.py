"""The networks of the anchors that no family of models holds in this size; random weights."""

import torch
from _sequences import Encoder
from torch import nn


def bert_base() -> nn.Module:
    """Return a BERT-base-shaped encoder, 12 layers of 768; tokens (n, 128) in."""
    torch.manual_seed(0)
    return Encoder(12, 768).eval()
