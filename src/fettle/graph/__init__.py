"""Graph passes: ONNX in, ONNX out; nothing here needs torch."""

from fettle.graph._pass import GraphPass

__all__ = ["GraphPass"]
