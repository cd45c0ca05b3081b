import errno
import os
import subprocess
from pathlib import Path

import pytest

from fettle.core import files
from fettle.core.errors import StorageError
from fettle.core.files import replacing, replacing_folder, storage_errors, write_json, write_text


class Crash(Exception):
    pass


def crash_in(block, write):
    with block as temporary:
        write(temporary)
        raise Crash


def listed(folder):
    return sorted(p.name for p in folder.iterdir())


def test_writes_and_makes_the_folder(tmp_path):
    write_text(tmp_path / "a" / "b" / "note.txt", "grüß")
    assert (tmp_path / "a" / "b" / "note.txt").read_text(encoding="utf-8") == "grüß"
    assert listed(tmp_path / "a" / "b") == ["note.txt"]


def test_others_may_read_what_is_written(tmp_path):
    write_text(tmp_path / "f", "x")
    with replacing_folder(tmp_path / "d"):
        pass
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o755


def test_a_crash_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(Crash):
        crash_in(replacing(path), lambda temporary: temporary.write_text("half of the n"))
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["f"]


def test_the_new_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "f"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename within one file system is atomic
    assert path.read_text() == "new"


def test_a_crash_leaves_the_old_folder_and_nothing_else(tmp_path):
    path = tmp_path / "d"
    path.mkdir()
    (path / "f").write_text("old")
    with pytest.raises(Crash):
        crash_in(replacing_folder(path), lambda temporary: (temporary / "g").write_text("new"))
    assert listed(path) == ["f"]
    assert listed(tmp_path) == ["d"]


def test_a_folder_is_replaced_in_whole(tmp_path):
    path = tmp_path / "d"
    for name in ("old", "new"):
        with replacing_folder(path) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / name).write_text(name)
    assert listed(path / "sub") == ["new"]
    assert listed(tmp_path) == ["d"]


def test_nan_is_no_json_and_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "f", {"a": [1, "ü"]})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "f", {"a": float("nan")})
    assert (tmp_path / "f").read_text().startswith('{\n  "a": [')
    assert listed(tmp_path) == ["f"]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_old_file(tiny_disk):
    path = tiny_disk / "f"
    write_text(path, "old")
    with pytest.raises(StorageError, match="disk is full"):
        write_text(path, "x" * 1_000_000)
    assert path.read_text() == "old"
    assert listed(tiny_disk) == ["f"]


def test_a_full_disk_leaves_the_old_folder(tiny_disk):
    path = tiny_disk / "d"
    with replacing_folder(path) as temporary:
        (temporary / "f").write_text("old")
    with pytest.raises(StorageError, match="disk is full"), replacing_folder(path) as temporary:
        (temporary / "f").write_bytes(b"x" * 1_000_000)
    assert (path / "f").read_text() == "old"
    assert listed(tiny_disk) == ["d"]


def test_a_full_disk_is_seen_at_the_last_moment(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    (tmp_path / "f").write_text("old")
    with pytest.raises(StorageError, match="disk is full"):
        write_text(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert listed(tmp_path) == ["f"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_mend_of_a_full_disk(number):
    with (
        pytest.raises(StorageError, match="free some space") as caught,
        storage_errors(Path("runs/x")),
    ):
        raise OSError(number, os.strerror(number))
    assert "runs/x" in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_device_that_is_full():
    with pytest.raises(StorageError, match="disk is full"), storage_errors(Path("/dev/full")):
        Path("/dev/full").write_text("x")


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "f").write_text("in the way")
    with pytest.raises(StorageError, match="can't write"):
        write_text(tmp_path / "f" / "g", "x")


def test_a_folder_where_a_file_is_needed(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(StorageError, match="can't write"):
        write_text(tmp_path / "d", "x")
    assert listed(tmp_path) == ["d"]


def test_other_errors_of_the_system_pass_through():
    with pytest.raises(FileNotFoundError), storage_errors(Path("x")):
        raise FileNotFoundError(errno.ENOENT, "gone")
