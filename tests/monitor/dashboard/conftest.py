"""States of the dashboard, made once."""

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def states(tmp_path_factory):
    """What the dashboard shows of a healthy server, one in trouble, and one that nobody asked."""
    samples = runpy.run_path(str(Path(__file__).with_name("sample.py")))
    return samples["states"](tmp_path_factory.mktemp("logs"))
