"""Compression techniques: torch module in, torch module out."""

from fettle.compress._soundness import check_sound
from fettle.compress._teacher import Ensemble
from fettle.compress._technique import Technique

__all__ = ["Ensemble", "Technique", "check_sound"]
