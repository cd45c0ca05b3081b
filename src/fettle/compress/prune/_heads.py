"""Attention layers as heads that can be taken out: who writes them, who reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Attention:
    """An attention layer whose heads stand side by side.

    Attributes:
        layer: has the numbers of heads.
        makers: linear layers that make queries, keys and values; each as many times `copies`.
        copies: 3 where one layer makes all three.
        reader: the linear layer that reads all heads' results.
        count: name of the number of heads.
        width: name of the heads' common width.
    """

    layer: nn.Module
    makers: tuple[nn.Linear, ...]
    copies: int
    reader: nn.Linear
    count: str
    width: str

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return int(getattr(self.layer, self.count))

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.reader.in_features // self.heads

    def columns(self, heads: Collection[int]) -> list[int]:
        """Return the channels of these heads among those that the reader reads."""
        width = self.head_width
        return [head * width + i for head in sorted(heads) for i in range(width)]

    @torch.no_grad()
    def silence(self, heads: Collection[int]) -> None:
        """Let the reader hear nothing of these heads."""
        self.reader.weight[:, self.columns(heads)] = 0

    def remove(self, heads: Collection[int]) -> None:
        """Take these heads out, in place."""
        left = [head for head in range(self.heads) if head not in set(heads)]
        columns, whole = torch.tensor(self.columns(left)), self.reader.in_features
        rows = torch.cat([columns + whole * copy for copy in range(self.copies)])
        for maker in self.makers:
            _keep(maker, rows, 0)
        _keep(self.reader, columns, 1)
        setattr(self.layer, self.width, len(columns))
        setattr(self.layer, self.count, len(left))

    def norms(self) -> Tensor:
        """Return Σ w² of each head, over the layers that make and read it."""
        parts = [self.reader.weight.detach().double().pow(2).sum(0)]
        for maker in self.makers:
            rows = maker.weight.detach().double().pow(2).sum(1)
            parts.append(rows.view(self.copies, -1).sum(0))
        return sum(parts, torch.zeros(())).view(self.heads, -1).sum(1).cpu()


def attentions(model: nn.Module) -> dict[str, Attention]:
    """Return, by path, the attention layers of timm's and of BERT's kind, in order."""
    found = {}
    for path, layer in model.named_modules():
        attention = next(filter(None, (_fused(layer), _separate(model, path, layer))), None)
        if attention and attention.heads > 1:
            found[path] = attention
    return found


def _fused(layer: nn.Module) -> Attention | None:
    """Timm's: one layer makes all three, `attn_dim` is the heads' width."""
    qkv, proj = (getattr(layer, name, None) for name in ("qkv", "proj"))
    width, gate = getattr(layer, "attn_dim", None), getattr(layer, "gate", None)
    plain = gate is None and isinstance(getattr(layer, "norm", None), nn.Identity)
    if not (isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear) and plain):
        return None
    if qkv.out_features != 3 * proj.in_features or proj.in_features != width:
        return None
    return Attention(layer, (qkv,), 3, proj, "num_heads", "attn_dim")


def _separate(model: nn.Module, path: str, layer: nn.Module) -> Attention | None:
    """BERT's: three layers, and the reader is a neighbour."""
    makers = tuple(_linears(layer, ("query", "key", "value")))
    numbers = ("num_attention_heads", "all_head_size")
    if len(makers) < 3 or not all(isinstance(getattr(layer, n, None), int) for n in numbers):
        return None
    parent = path.rpartition(".")[0]
    try:
        reader = model.get_submodule(f"{parent}.output.dense" if parent else "output.dense")
    except AttributeError:
        return None
    if not isinstance(reader, nn.Linear) or len({reader.in_features, *map(_out, makers)}) > 1:
        return None
    return Attention(layer, makers, 1, reader, *numbers)


def _linears(layer: nn.Module, names: tuple[str, ...]) -> Iterator[nn.Linear]:
    for name in names:
        part = getattr(layer, name, None)
        if isinstance(part, nn.Linear):
            yield part


def _out(layer: nn.Linear) -> int:
    return layer.out_features


def _keep(layer: nn.Linear, left: Tensor, axis: int) -> None:
    wanted = layer.weight.requires_grad
    kept = left.to(layer.weight.device)
    layer.weight = nn.Parameter(layer.weight.detach().index_select(axis, kept), wanted)
    if axis == 1:
        layer.in_features = len(left)
        return
    layer.out_features = len(left)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept], layer.bias.requires_grad)
