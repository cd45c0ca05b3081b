"""The contract of a data source, as far as it can be kept without knowing its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fettle.core.errors import FettleError, InputError, KnobError
from fettle.core.shelf import SOURCES
from fettle.tasks import Data, DataSource
from fettle.testing._plugin import PluginContract


class DataSourceContract(PluginContract):
    """What a data source keeps, whatever it reads."""

    shelf = SOURCES

    def source(self, name: str, where: str = "") -> DataSource:
        """Return the source, reading `where`."""
        made = self.shelf.make(name, where=where)
        assert isinstance(made, DataSource)
        return made

    def test_needs_a_place_or_none(self, name: str) -> None:
        """Without a place it reads sound data, or says what it expects after the colon."""
        self.load(name)
        try:
            data = self.source(name).read()
        except KnobError as error:
            assert f"`{name}" in str(error)  # noqa: PT017  (whether it raises is its own choice)
            return
        assert isinstance(data, Data)
        assert len(data.pool) == len(data.pool.y) == len(data.pool.digests())
        assert data.pool.y.dtype == np.int64
        assert 0 <= data.pool.y.min() <= data.pool.y.max() < data.classes
        assert data.pool.take(np.array([0, 1])).shape == (2, *data.pool.shape)

    def test_refuses_a_place_that_is_not_there(self, name: str, tmp_path: Path) -> None:
        """A missing file or folder is a FettleError that names it, not a traceback."""
        self.load(name)
        with pytest.raises(FettleError, match="nowhere"):
            self.source(name, str(tmp_path / "nowhere")).read()

    def test_refuses_garbage(self, name: str, tmp_path: Path) -> None:
        """A file that is no data is an InputError."""
        self.load(name)
        garbage = tmp_path / "garbage"
        garbage.write_bytes(bytes(range(256)) * 16)
        with pytest.raises(InputError):
            self.source(name, str(garbage)).read()

    def test_refuses_an_empty_folder(self, name: str, tmp_path: Path) -> None:
        """A folder without data is a FettleError."""
        self.load(name)
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(FettleError):
            self.source(name, str(empty)).read()
