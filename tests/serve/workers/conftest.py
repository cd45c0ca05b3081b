"""Worker processes of the sample bundle, few of them: each takes a second to start."""

from pathlib import Path

import pytest

from fettle.serve._engine import sha_of
from fettle.serve.workers.remote import Job, Remote


@pytest.fixture(scope="session")
def job(proven):
    return Job(Path(proven.path), sha_of(proven.manifest), 1, 20.0)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, which is empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def remote(job):
    worker = Remote(job)
    yield worker
    worker.close()
    worker.kill()
    worker.wait()
