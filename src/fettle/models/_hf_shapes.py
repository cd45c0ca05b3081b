"""Encoders by name: their published configurations, as data; all else is transformers' default.

BERT in five sizes: Turc et al. 2019 (arXiv 1908.08962); DistilBERT: Sanh et al. 2019 (1910.01108);
MiniLM: Wang et al. 2020 (2002.10957); TinyBERT: Jiao et al. 2020 (1909.10351); RoBERTa: Liu et al.
2019 (1907.11692); ELECTRA: Clark et al. 2020 (2003.10555); ALBERT: Lan et al. 2020 (1909.11942);
MobileBERT: Sun et al. 2020 (2004.02984).
"""

from __future__ import annotations

import re
from typing import Any

Shape = tuple[str, dict[str, Any]]


def _bert(layers: int, hidden: int, heads: int = 0, intermediate: int = 0) -> Shape:
    return "bert", {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads or max(hidden // 64, 1),
        "intermediate_size": intermediate or 4 * hidden,
    }


SHAPES: dict[str, Shape] = {
    "bert-tiny": _bert(2, 128),
    "bert-mini": _bert(4, 256),
    "bert-small": _bert(4, 512),
    "bert-medium": _bert(8, 512),
    "bert-base": _bert(12, 768),
    "bert-large": _bert(24, 1024),
    "minilm-l6": _bert(6, 384, 12),
    "minilm-l12": _bert(12, 384, 12),
    "tinybert-4l": _bert(4, 312, 12, 1200),
    "distilbert-base": ("distilbert", {}),
    "roberta-base": (
        "roberta",
        {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
    "electra-small": ("electra", {}),
    "albert-base": (
        "albert",
        {
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    ),
    "mobilebert": ("mobilebert", {}),
}
ALIASES = {
    "bert": "bert-base",
    "distilbert": "distilbert-base",
    "minilm": "minilm-l6",
    "roberta": "roberta-base",
    "electra": "electra-small",
    "albert": "albert-base",
}
_SIZED = re.compile(r"bert-([1-9]\d?)x([1-9]\d{1,3})")


def shape_of(name: str) -> Shape | None:
    """Return the model type and the settings of `name`, or None where no such shape is known.

    `bert-4x256` is a BERT of 4 layers, 256 wide, with a head for every 64.
    """
    sized = _SIZED.fullmatch(name)
    if sized:
        layers, hidden = int(sized[1]), int(sized[2])
        return _bert(layers, hidden) if hidden < 64 or hidden % 64 == 0 else None
    return SHAPES.get(ALIASES.get(name, name))
