"""`rnn:lstm`, `rnn:gru`: recurrent classifiers of sequences, tokens, and images read row by row.

Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 1997; Cho et al., "Learning
Phrase Representations using RNN Encoder-Decoder", EMNLP 2014 (arXiv 1406.1078).

Names are `lstm`, `gru`, `bilstm`, `bigru` (both directions), with the hidden size and the number
of layers where they aren't 64 and 1: `lstm128`, `bigru32x2`.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from fettle.core.errors import ModelError, UnknownName
from fettle.models._origin import Origin

NAMES = ("lstm", "gru", "bilstm", "bigru", "lstm128", "gru128", "lstm128x2", "gru128x2")
_NAME = re.compile(r"(bi)?(lstm|gru)(\d{1,4})?(?:x(\d))?")
_KINDS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Sequences to logits: recurrent layers, the mean over time, one linear layer.

    Takes (n, time, features), an image (n, c, h, w) as h steps of c · w features, or with a
    vocabulary token ids (n, time) and, where padding is to be left out of the mean, their mask.
    """

    def __init__(self, recurrent: nn.LSTM | nn.GRU, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, recurrent.input_size) if vocabulary else None
        self.recurrent = recurrent
        directions = 2 if recurrent.bidirectional else 1
        self.linear = nn.Linear(recurrent.hidden_size * directions, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (n, classes)."""
        if self.embedding is not None:
            x = self.embedding(x)  # (n, time, hidden)
        elif x.dim() == 4:
            x = x.transpose(1, 2).flatten(2)  # (n, h, c · w)
        steps, _ = self.recurrent(x)  # (n, time, directions · hidden)
        logits: Tensor = self.linear(_mean(steps, mask))
        return logits


def _mean(steps: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of `steps` (n, time, hidden) over those that `mask` (n, time) has 1 for."""
    if mask is None:
        return steps.mean(1)
    weights = mask.to(steps.dtype).unsqueeze(-1)  # (n, time, 1)
    total: Tensor = (steps * weights).sum(1) / torch.clamp(weights.sum(1), min=1.0)
    return total


def build(name: str, origin: Origin) -> Recurrent:
    """Return the untrained network called `name`, for the origin's inputs and classes.

    Without a task it takes sequences of 8 features, to 10 classes.

    Raises:
        UnknownName: the name is none of those above.
        ModelError: the task's inputs are no sequence.
    """
    match = _NAME.fullmatch(name)
    hidden, layers = (int(match[3] or 64), int(match[4] or 1)) if match else (0, 0)
    if match is None or not hidden or not layers:
        raise UnknownName("model", f"rnn:{name}", [f"rnn:{known}" for known in NAMES])
    vocabulary = origin.vocabulary if origin.takes_tokens else 0
    recurrent = _KINDS[match[2]](
        hidden if vocabulary else _features(name, origin),
        hidden,
        layers,
        batch_first=True,
        bidirectional=bool(match[1]),
    )
    return Recurrent(recurrent, vocabulary, origin.classes or 10)


def _features(name: str, origin: Origin) -> int:
    if origin.image:
        return origin.image[0] * origin.image[2]
    if not origin.inputs:
        return 8
    shapes = [list(spec.shape[1:]) for spec in origin.inputs]
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise ModelError(
            f"`rnn:{name}` takes one sequence (time, features), token ids with their mask, or one"
            f" image; this task has inputs of shape {shapes}: choose another model"
        )
    return int(shapes[0][1])
