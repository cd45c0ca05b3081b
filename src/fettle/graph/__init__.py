"""Graph passes: ONNX in, ONNX out; nothing here needs torch."""

from fettle.graph._pass import GraphPass
from fettle.graph._quantized import weighted_nodes

__all__ = ["GraphPass", "weighted_nodes"]
