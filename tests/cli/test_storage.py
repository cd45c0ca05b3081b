"""Disks that are full and folders that can't be written: what was there is untouched."""

import os
import shutil
import subprocess

import pytest

from fettle.core.bundle import Bundle


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of so many kilobytes; skips where that is not allowed."""
    mounted = []

    def mount(kilobytes):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no `mount` here")
        if done.returncode:
            pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


WORDS = ["--model", "cifar:resnet8", "--data", "digits"]  # 300 kB of weights


def slow(words):
    return pytest.param(words, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "words",
    [
        ["compress", *WORDS, "--out", "out"],
        slow(["compress", *WORDS, "-t", "distill.logits(epochs=1)", "--out", "out"]),
        ["export", *WORDS, "--out", "model.onnx"],
        slow(["train", *WORDS, "--epochs", "1", "--out", "out"]),
        ["train", *WORDS, "--epochs", "0", "--out", "out"],
    ],
)
def test_a_full_disk(refused, small_disk, words):
    disk = small_disk(200)
    (disk / "mine").write_text("untouched")
    refused([*words[:-1], disk / words[-1]], "the disk is full", "free some space")
    left = contents(disk)
    assert left.pop("mine") == b"untouched"
    assert set(left) <= {"out/.lock", "out/journal.jsonl"}


def test_a_disk_that_fills_up_at_the_end(refused, fettle, small_disk, finished, study_words):
    disk = small_disk(4000)
    out = shutil.copytree(finished, disk / "out")
    before = contents(out)
    (disk / "filler").write_bytes(bytes(disk_free(disk) - 20_000))
    refused([*study_words, "--out", out], "the disk is full")
    after = contents(out)
    del before["journal.jsonl"], after["journal.jsonl"]
    assert after == before
    assert Bundle.open(out / "best")
    (disk / "filler").unlink()
    assert fettle(*study_words, "--out", out).code in (0, 1)


def disk_free(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("verb", ["compress", "train", "export"])
def test_a_folder_that_can_not_be_written(refused, tmp_path, verb):
    tmp_path.chmod(0o500)
    out = tmp_path / ("model.onnx" if verb == "export" else "out")
    refused([verb, *WORDS, "--out", out], "can't write", "choose a folder")
