"""Runtimes: ONNX in, a session that runs it out."""

from fettle.runtimes._runtime import LayerPrecision, Runtime, Session

__all__ = ["LayerPrecision", "Runtime", "Session"]
