"""Export: torch module in, ONNX file out, with a proof that both compute the same."""

from fettle.export._parity import Parity, ParityLimits, check_parity
from fettle.export.onnx_file import OPSET, export_onnx

__all__ = ["OPSET", "Parity", "ParityLimits", "check_parity", "export_onnx"]
