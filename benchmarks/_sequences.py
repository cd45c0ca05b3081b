"""Networks without convolutions in the main, random weights: LSTM, encoders, a vision transformer.

Speed doesn't depend on the weights.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn
from torch.export import Dim

from fettle import models
from fettle.models._torchvision import import_torchvision

TOKENS, WORDS, STEPS, FEATURES = 128, 8000, 64, 128


class LstmClassifier(nn.Module):
    """Two bidirectional layers of 256 over 64 steps of 128 features; 4.2 M weights."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(FEATURES, 256, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(512, 10)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 10) of features (n, 64, 128)."""
        return self.head(self.recurrent(features)[0].mean(1))


class Encoder(nn.Module):
    """A BERT of `layers` × `width` with one linear layer on its first token."""

    def __init__(self, layers: int, width: int) -> None:
        import_torchvision()  # transformers asks for it, and its own import may fail
        from transformers import BertConfig, BertModel

        super().__init__()
        self.body = BertModel(
            BertConfig(
                vocab_size=WORDS,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=width // 64,
                intermediate_size=4 * width,
            )
        )
        self.head = nn.Linear(width, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 8) of tokens (n, 128)."""
        return self.head(self.body(input_ids=tokens).last_hidden_state[:, 0])


def _features(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, STEPS, FEATURES), dtype=np.float32)


def _tokens(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, WORDS, (n, TOKENS))


def _images(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 3, 224, 224), dtype=np.float32)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], np.ndarray]]] = {
    "LSTM 2×256, 64 steps": (LstmClassifier, _features),
    "BERT-shaped 4×256, 128 tokens": (lambda: Encoder(4, 256), _tokens),
    "ViT-tiny 224": (lambda: models.load("timm:vit_tiny_patch16_224", seed=0), _images),
    "BERT-base-shaped 12×768, 128 tokens": (lambda: Encoder(12, 768), _tokens),
}


def exported(name: str, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Export a network of `NETWORKS` to ONNX; return the file and eight inputs."""
    make, inputs = NETWORKS[name]
    torch.manual_seed(0)
    module, array = make().eval(), inputs(8)
    path = folder / "f32.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.from_numpy(array[:2]),), path, dynamo=True, opset_version=20,
            input_names=["input"], output_names=["logits"], external_data=False,
            dynamic_shapes=({0: Dim("batch", min=1)},), verbose=False,
        )  # fmt: skip
    model = ir.load(path)
    ClearMetadataAndDocStringPass()(model)  # the exporter's notes, which no other file has
    ir.save(model, path)
    return path, {"input": array}
