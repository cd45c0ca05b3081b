"""One plain fit loop: mixed precision, several devices, checkpoint and resume, progress."""

from fettle.train._tensors import device_of, first_output, inputs_of, refuse_nan
from fettle.train.evaluate import accuracy, predict
from fettle.train.fit import fit
from fettle.train.history import EpochRecord, History
from fettle.train.hooks import Hooks, keep_mode, switch_mode
from fettle.train.plan import FitPlan

__all__ = [
    "EpochRecord",
    "FitPlan",
    "History",
    "Hooks",
    "accuracy",
    "device_of",
    "first_output",
    "fit",
    "inputs_of",
    "keep_mode",
    "predict",
    "refuse_nan",
    "switch_mode",
]
