"""Quantization on the torch side: the symmetric int8 master, calibrated or trained."""
