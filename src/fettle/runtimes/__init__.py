"""Runtimes: ONNX in, a session that runs it out."""

from fettle.runtimes._runtime import LayerPrecision, Runtime, Session, match_inputs
from fettle.runtimes._smoke import smoke

__all__ = ["LayerPrecision", "Runtime", "Session", "match_inputs", "smoke"]
