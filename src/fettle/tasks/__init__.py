"""What a model is for: data splits, loss, score; and the sources of data."""

from fettle.tasks._data import ArrayExamples, Data, Examples, Preprocessing
from fettle.tasks._load import load
from fettle.tasks._source import DataSource
from fettle.tasks._task import Task
from fettle.tasks.classification import Classification, Options

__all__ = [
    "ArrayExamples",
    "Classification",
    "Data",
    "DataSource",
    "Examples",
    "Options",
    "Preprocessing",
    "Task",
    "load",
]
