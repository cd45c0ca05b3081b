"""Runtimes: ONNX in, a session that runs it out."""

from fettle.runtimes._lowering import lowered, write_lowered
from fettle.runtimes._runtime import LayerPrecision, LayerTime, Runtime, Session, match_inputs
from fettle.runtimes._smoke import smoke
from fettle.runtimes._trtexec import trtexec_commands

__all__ = [
    "LayerPrecision",
    "LayerTime",
    "Runtime",
    "Session",
    "lowered",
    "match_inputs",
    "smoke",
    "trtexec_commands",
    "write_lowered",
]
