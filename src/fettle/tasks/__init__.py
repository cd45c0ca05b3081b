"""What a model is for: data splits, loss, score; and the sources of data."""

from fettle.tasks._data import ArrayExamples, Data, Examples, Preprocessing
from fettle.tasks._kinds import AUTO, kinds
from fettle.tasks._load import load
from fettle.tasks._on_data import DataTask
from fettle.tasks._options import Options
from fettle.tasks._source import DataSource
from fettle.tasks._task import Task
from fettle.tasks.agreement import Agreement
from fettle.tasks.classification import Classification
from fettle.tasks.embedding import Embedding
from fettle.tasks.fidelity import Fidelity
from fettle.tasks.regression import Regression

__all__ = [
    "AUTO",
    "Agreement",
    "ArrayExamples",
    "Classification",
    "Data",
    "DataSource",
    "DataTask",
    "Embedding",
    "Examples",
    "Fidelity",
    "Options",
    "Preprocessing",
    "Regression",
    "Task",
    "kinds",
    "load",
]
