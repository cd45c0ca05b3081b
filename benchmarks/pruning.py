"""Structured pruning of the pretrained CIFAR-10 ResNets by each importance, beside chance."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from _results import interval, record, table

from fettle import compress, models, tasks
from fettle.compress import Technique
from fettle.core.context import Context
from fettle.core.progress import reporter
from fettle.core.recipe import Recipe
from fettle.core.shelf import TECHNIQUES
from fettle.search.study import Setting
from fettle.search.workshop import Source
from fettle.train import accuracy

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))
IMPORTANCES = ("l2", "l1", "taylor", "fpgm", "bn_scale", "random")
HEAD = (
    "network", "technique", "engine", "MACs ×", "size ×", "top-1 % before fine-tuning",
    "top-1 % after (test)", "drop, pp", "× same engine's f32, batch 64",
)  # fmt: skip
GUIDE = ("guide S7", "L2 norm, 20 % of output channels, masked only", *("–",) * 6, "1.00")


@dataclass(frozen=True)
class Row:
    """What is asked of one network and technique."""

    network: str
    recipe: str

    def before_tuning(self, task: tasks.Task) -> float:
        """Return top-1 in % on the test split right after removal."""
        technique = Recipe.parse(self.recipe).steps[0]
        assert isinstance(technique, Technique)
        module = technique.but(epochs=0)(self.module(), task)
        return 100 * accuracy(module, task, "test")

    def module(self) -> torch.nn.Module:
        """Return the pretrained network."""
        return models.load(f"cifar:{self.network}", weights=weights(self.network))

    def cells(self, task: tasks.Task) -> list[list[str]]:
        """Return the table's rows, one an engine."""
        before, found = self.before_tuning(task), []
        for engine in ("onnxruntime", "openvino"):
            place = ROOT / "runs" / f"bench-prune-{self.network}-{engine}"
            setting = Setting(target=(engine,), batch=64, seconds=30, only_given=True)
            source = Source(f"cifar:{self.network}", weights(self.network))
            context = Context(progress=reporter())
            result = compress(source, task, Recipe.parse(self.recipe), place, setting, context)
            found.append([self.network, self.recipe, engine, *numbers(result, before)])
        return found


def main() -> int:
    """Prune both networks by each importance, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning")
    parser.add_argument("--ratio", type=float, default=0.3, help="of channels removed")
    parser.add_argument("--networks", default="resnet20,resnet56", help="by comma")
    options = parser.parse_args()
    if not (DATA / "cifar10").is_dir():
        print("skipped: FETTLE_DATA names no folder with cifar10/ and weights/", file=sys.stderr)
        return 0
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}")
    rows = [
        cells
        for network in options.networks.split(",")
        for recipe in recipes(options.ratio, options.epochs)
        for cells in Row(network, recipe).cells(task)
    ]
    record("pruning", "Structured pruning on CIFAR-10", table(HEAD, [*rows, GUIDE]))
    return 0


def recipes(ratio: float, epochs: int) -> list[str]:
    """Return the recipes that are compared: every importance, and blocks."""
    channels = [
        TECHNIQUES.make("prune.channels", ratio=ratio, importance=kind, epochs=epochs, lr=0.01)
        for kind in IMPORTANCES
    ]
    blocks = TECHNIQUES.make("prune.blocks", ratio=ratio, epochs=epochs, lr=0.01)
    return [str(step) for step in (*channels, blocks)]


def numbers(result: dict, before: float) -> list[str]:
    """Return the cells that follow network, technique and engine."""
    base, best = result["baseline"], result["best"]
    percent, drop = (
        {k: 100 * v for k, v in best[name].items() if k in ("value", "low", "high")}
        for name in ("metric", "drop")
    )
    return [
        f"{best['macs'] / base['macs']:.2f}",
        f"{best['size_bytes'] / base['size_bytes']:.2f}",
        f"{before:.2f}",
        interval(percent),
        interval(drop),
        interval(best["speedup"]["vs_same_runtime_fp32"]),
    ]


def weights(network: str) -> str:
    """Return the file of pretrained weights."""
    return str(DATA / "weights" / f"cifar10_{network}.safetensors")


if __name__ == "__main__":
    sys.exit(main())
