"""Sample results for the tests of the report."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_SAMPLES = runpy.run_path(str(Path(__file__).with_name("sample_result.py")))
_SEARCH = runpy.run_path(str(Path(__file__).with_name("search_sample.py")))
_BENCH = runpy.run_path(str(Path(__file__).with_name("bench_sample.py")))


@pytest.fixture
def result() -> dict[str, Any]:
    """A result that passed."""
    return _SAMPLES["sample_result"]()


@pytest.fixture
def open_result() -> dict[str, Any]:
    """A result that settles nothing."""
    return _SAMPLES["open_result"]()


@pytest.fixture
def failed_result() -> dict[str, Any]:
    """A result past its budget."""
    return _SAMPLES["failed_result"]()


@pytest.fixture
def bench_result() -> dict[str, Any]:
    """A benchmark of two artifacts on three engines, in two groups."""
    return _BENCH["bench_result"]()


@pytest.fixture
def search_sample() -> Callable[..., dict[str, Any]]:
    """Make up how a search went."""
    return _SEARCH["search_sample"]
