"""`path/file.py:function` and `package.module:function`: data of the user's own.

The function takes nothing and returns a `Task`, one data set, or a pair of them (train, test). A
data set has a length and gives `(x, y)` by index: `x` an array, a torch tensor or a Pillow image,
all of one shape, or a mapping of several such inputs by name; `y` a whole number (a class), a float
(a value to predict), or None. A data set may also give `x` alone: then there are no labels. It is
read into memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.errors import DataError
from fettle.core.usercode import find_function
from fettle.tasks._arrays import data_of
from fettle.tasks._data import Data
from fettle.tasks._named import named_data
from fettle.tasks._source import DataSource
from fettle.tasks._task import Task

_SOLE = ""  # what an example's one input without a name is called here


@dataclass(frozen=True, kw_only=True)
class Function(DataSource):
    """What a function of the user's own returns."""

    def read(self) -> Data | Task:
        """Call the function, and read the data sets that it returns."""
        spec = self._need_where("`file.py:function`")
        try:
            made = find_function(spec, DataError)()
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"`{spec}` raised {type(error).__name__}: {error}; mend it") from error
        if isinstance(made, Task):
            return made
        if isinstance(made, tuple) and len(made) == 2:
            train, test = (_arrays(part, spec) for part in made)
            return _data(*train, test)
        return _data(*_arrays(made, spec))


_Labels = np.ndarray | None


def _data(x: Any, y: _Labels, test: tuple[Any, _Labels] | None = None) -> Data:
    return (named_data if isinstance(x, dict) else data_of)(x, y, test)


def _arrays(dataset: Any, spec: str) -> tuple[Any, _Labels]:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"`{spec}` is expected to return a task, a data set with a length and `(x, y)` by"
            f" index, or a pair of them (train, test); got {type(dataset).__name__}"
        )
    try:
        pairs = [_pair(dataset[i]) for i in range(len(dataset))]
        x = [_named(pair[0]) for pair in pairs]
        y = _labels([pair[1] for pair in pairs])
    except Exception as error:
        raise DataError(
            f"the data set of `{spec}` is expected to give `(x, y)` for every index below its"
            f" length; {type(error).__name__}: {error}"
        ) from error
    names = list(x[0]) if x else []
    if any(list(example) != names for example in x):
        raise DataError(f"every example of `{spec}` was expected to have the same inputs, {names}")
    arrays = {name: _stacked([example[name] for example in x], spec) for name in names}
    return (arrays[_SOLE] if names == [_SOLE] else arrays), y


def _pair(example: Any) -> tuple[Any, Any]:
    """Return an example's inputs and its label, None where it has none."""
    if isinstance(example, Mapping):
        label = next((k for k in ("labels", "label") if k in example), None)
        return {k: v for k, v in example.items() if k != label}, example.get(label)
    if len(getattr(example, "shape", ())):
        return example, None
    return example[0], example[1] if len(example) > 1 else None


def _labels(found: list[Any]) -> _Labels:
    if all(label is None for label in found):
        return None
    arrays = [np.asarray(label, dtype=np.float64) for label in found]
    return np.stack([array.reshape(()) if array.size == 1 else array for array in arrays])


def _named(x: Any) -> dict[str, np.ndarray]:
    inputs = x if isinstance(x, Mapping) else {_SOLE: x}
    return {str(name): np.asarray(value) for name, value in inputs.items()}


def _stacked(arrays: list[np.ndarray], spec: str) -> np.ndarray:
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise DataError(f"examples of one shape were expected from `{spec}`, got {sorted(shapes)}")
    return np.stack(arrays)
