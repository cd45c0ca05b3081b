"""Compression techniques: torch module in, torch module out."""

from fettle.compress._teacher import Ensemble
from fettle.compress._technique import Technique

__all__ = ["Ensemble", "Technique"]
