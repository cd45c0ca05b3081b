"""Quantization on the torch side: the symmetric int8 master, calibrated or trained."""

import logging

# Importing torchao reports GPU kernels that can't load on a CPU, and a deprecation of its own.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
