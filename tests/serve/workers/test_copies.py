"""Copies of bundles: whole, removed at the end, and those of killed servers are too."""

import subprocess
import sys

import pytest

from fettle.core.bundle import Bundle
from fettle.core.errors import StorageError
from fettle.serve.workers.copies import Copy, remove_abandoned


def test_it_is_the_same_bundle_and_goes_with_close(proven, temporary):
    copy = Copy(proven)
    assert Bundle.open(copy.path).manifest == proven.manifest
    copy.close()
    copy.close()
    assert not list(temporary.iterdir())


def test_what_a_killed_server_left_is_removed_and_what_another_uses_is_not(proven, temporary):
    ours = Copy(proven)
    code = (
        "import os, sys, tempfile; from fettle.core.bundle import Bundle;"
        " from fettle.serve.workers.copies import Copy; tempfile.tempdir = sys.argv[1];"
        " Copy(Bundle.open(sys.argv[2])); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(temporary), str(proven.path)]
    assert subprocess.run(command, check=False).returncode == -9
    (temporary / "fettle-worker-begun").mkdir()  # its lock isn't there yet
    assert len(list(temporary.iterdir())) == 3
    remove_abandoned()
    assert sorted(path.name for path in temporary.iterdir()) == sorted(
        [ours.path.parent.name, "fettle-worker-begun"]
    )
    ours.close()


def test_no_room_is_told_with_its_mend(proven, temporary, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(StorageError, match="TMPDIR"):
        Copy(proven)
    assert not list(temporary.iterdir())
