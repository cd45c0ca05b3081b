from __future__ import annotations

import gzip
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fettle import tasks
from fettle.core.arrays import SPLITS
from fettle.core.errors import DataError, KnobError, MissingError, UnknownName
from fettle.core.shelf import SOURCES
from fettle.tasks.sources.cifar10 import read_mosaic

DATA = Path(os.environ.get("FETTLE_DATA") or Path(__file__).parents[3] / "shared" / "data")


def pixels(n=60, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


Y = np.arange(60) % 3


def test_the_shelf_holds_every_source():
    names = ["cifar10", "digits", "function", "imagefolder", "noise", "npz", "rows", "text"]
    names += ["tokens", "torchvision"]
    assert SOURCES.names() == names
    for name in names:
        assert SOURCES.load(name).name() == name


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("digit", UnknownName, "did you mean `digits`"),
        ("npx:file.npz", UnknownName, "`npz`"),
        ("digits:8", KnobError, "stands alone"),
        ("npz", KnobError, "after a colon"),
        ("npz:absent.npz", DataError, "there is none"),
        ("cifar10:absent", DataError, "torchvision:CIFAR10"),
        ("imagefolder:absent", DataError, "there is none"),
        ("torchvision:MNISD", UnknownName, "torchvision:MNIST"),
    ],
)
def test_wrong_lines_are_explained(text, error, message):
    with pytest.raises(error, match=message):
        tasks.load(text)


def test_unknown_and_wrong_knobs_are_explained():
    with pytest.raises(KnobError, match="no knob `layot`"):
        tasks.load("npz:file.npz", layot="nchw")
    with pytest.raises(KnobError, match="one of"):
        tasks.load("digits", augment="cutout")


# npz


def test_npz_with_one_set(tmp_path):
    np.savez(tmp_path / "a.npz", x=pixels(), y=Y)
    task = tasks.load(f"npz:{tmp_path / 'a.npz'}", mean="0.1,0.2,0.3", std="0.4")
    assert task.signature.image == (3, 8, 8)
    assert task.preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert sum(task.size(split) for split in SPLITS) == 60


def test_npz_with_its_own_test_set(tmp_path):
    x, x_test = pixels(), pixels(30, seed=1)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=Y, x_test=x_test, y_test=Y[:30])
    task = tasks.load(f"npz:{tmp_path / 'a.npz'}", classes=5)
    assert task.signature.classes == 5
    (batch,) = task.batches("test")
    wanted = (x_test / 255 - 0.5) / 0.5
    np.testing.assert_allclose(
        batch.inputs["input"], wanted.transpose(0, 3, 1, 2), atol=1e-6, rtol=0
    )
    np.testing.assert_array_equal(batch.targets, Y[:30])


def test_npz_layout_can_be_told(tmp_path):
    np.savez(tmp_path / "a.npz", x=pixels(shape=(3, 9, 3)), y=Y)
    found = [
        tasks.load(f"npz:{tmp_path / 'a.npz'}", layout=layout).signature.image
        for layout in ("auto", "nchw")
    ]
    assert found == [(3, 3, 9), (3, 9, 3)]


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_pickles_in_an_archive_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([Trap()] * 60, dtype=object), y=Y)
    with pytest.raises(DataError, match=r"no sound \.npz archive"):
        tasks.load(f"npz:{path}")
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"no sound \.npz archive"):
        tasks.load(f"npz:{path}")


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    path = tmp_path / "a.npz"
    np.savez(path, x=pixels(), y=Y)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"no sound \.npz archive"):
        tasks.load(f"npz:{path}")


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=pixels(), y=Y)
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"no sound \.npz archive"):
        tasks.load(f"npz:{path}")


def test_an_archive_of_other_names_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=pixels(), y=Y)
    with pytest.raises(DataError, match=r"expected to hold `x` and `y`.*\['y'\]"):
        tasks.load(f"npz:{tmp_path / 'a.npz'}")


@pytest.mark.data
def test_the_keyword_spotting_clips():
    file = DATA / "kws" / "kws_test.npz"
    if not file.is_file():
        pytest.skip(f"the benchmark data is not at {DATA}")
    task = tasks.load(f"npz:{file}")
    assert task.signature.inputs[0].shape == (-1, 1, 49, 10)
    assert task.signature.classes == 12


# CIFAR in torchvision's files


def write_cifar(folder, names, label="labels", n=20):
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        data = pixels(n, (3072,), seed)
        batch = {b"data": data, label.encode(): [int(i) % 10 for i in range(n)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@pytest.mark.parametrize("spec", ["cifar10:{}", "cifar10:{}/cifar-10-batches-py"])
def test_cifar10_in_torchvisions_layout(tmp_path, spec):
    write_cifar(tmp_path / "cifar-10-batches-py", BATCHES)
    task = tasks.load(spec.format(tmp_path))
    assert (task.size("test"), sum(task.size(s) for s in SPLITS)) == (20, 120)
    assert task.labels[3] == "cat"
    (batch,) = task.batches("test")
    raw = pixels(20, (3072,), seed=5).reshape(20, 3, 32, 32)
    red = (raw[:, 0] / 255 - 0.485) / 0.229
    np.testing.assert_allclose(batch.inputs["input"][:, 0], red, atol=2e-6)


def test_torchvision_reads_the_same_cifar10(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py", BATCHES)
    one = tasks.load(f"cifar10:{tmp_path}")
    two = tasks.load("torchvision:CIFAR10", root=str(tmp_path))
    assert [one.fingerprint(s) for s in SPLITS] == [two.fingerprint(s) for s in SPLITS]


def test_cifar100(tmp_path):
    write_cifar(tmp_path / "cifar-100-python", ["train", "test"], "fine_labels", n=40)
    task = tasks.load("torchvision:CIFAR100", root=str(tmp_path))
    assert task.signature.classes == 100
    assert task.size("test") == 40


def test_a_batch_that_would_run_code_is_refused(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py", BATCHES)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="not admitted"):
        tasks.load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q", pickle.dumps({b"data": [1]})])
def test_a_damaged_batch_is_refused(tmp_path, content):
    write_cifar(tmp_path / "cifar-10-batches-py", BATCHES)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch"):
        tasks.load(f"cifar10:{tmp_path}")


# CIFAR as mosaics


def test_a_mosaic_is_cut_row_by_row(tmp_path):
    tiles = pixels(10_000, (32, 32, 3))
    whole = Image.new("RGB", (3200, 3200))
    for i in (0, 1, 99, 100, 9_999):
        whole.paste(Image.fromarray(tiles[i]), (i % 100 * 32, i // 100 * 32))
    path = tmp_path / "test.webp"
    whole.save(path, lossless=True, method=0, quality=0)
    found = read_mosaic(path)
    for i in (0, 1, 99, 100, 9_999):
        np.testing.assert_array_equal(found[i], tiles[i])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="no sound WebP"):
        read_mosaic(path)


def test_a_mosaic_of_another_size_is_refused(tmp_path):
    Image.new("RGB", (320, 320)).save(tmp_path / "test.webp")
    with pytest.raises(DataError, match=r"got \(320, 320\)"):
        read_mosaic(tmp_path / "test.webp")


@pytest.mark.data
@pytest.mark.slow
def test_the_real_cifar10():
    if not (DATA / "cifar10" / "labels.npz").is_file():
        pytest.skip(f"the benchmark data is not at {DATA}")
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}")
    assert [task.size(s) for s in SPLITS] == [44_488, 512, 5_000, 10_000]
    y = np.concatenate([batch.targets for batch in task.batches("test")])
    np.testing.assert_array_equal(np.bincount(y), [1000] * 10)


# MNIST in IDX files


def write_idx(path, array, packed=False):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_mnist(root, packed=False):
    for part, seed in (("train", 0), ("t10k", 1)):
        x = pixels(60, (28, 28), seed)
        write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", x, packed)
        write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", Y, packed)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(tmp_path, packed):
    write_mnist(tmp_path, packed)
    task = tasks.load("torchvision:MNIST", root=str(tmp_path))
    (batch,) = task.batches("test")
    wanted = (pixels(60, (28, 28), 1) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(batch.inputs["input"][:, 0], wanted, atol=1e-6)
    assert task.signature.classes == 10


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\0", None])
def test_damaged_idx_files_are_refused(tmp_path, content):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    with pytest.raises(DataError, match="get it anew"):
        tasks.load("torchvision:MNIST", root=str(tmp_path))


def test_what_is_not_there_is_never_fetched_unasked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match="download=True"):
        tasks.load("torchvision:FashionMNIST", root=str(tmp_path))
    with pytest.raises(MissingError, match=r"fettle\[vision\]"):
        tasks.load("torchvision:FashionMNIST", root=str(tmp_path), download=True)


# Folders of images


def write_folder(root, names=("cat", "dog"), n=15, size=(20, 26)):
    for seed, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i, image in enumerate(pixels(n, (*size, 3), seed)):
            Image.fromarray(image).save(root / name / f"{i}.png")


def test_imagefolder_is_carved(tmp_path):
    write_folder(tmp_path)
    task = tasks.load(f"imagefolder:{tmp_path}", size=16)
    assert task.labels == ("cat", "dog")
    assert task.signature.image == (3, 16, 16)
    assert sum(task.size(split) for split in SPLITS) == 30
    batch = next(iter(task.epoch(0, 0, 4)))
    assert batch.inputs["input"].shape == (4, 3, 16, 16)


def test_imagefolder_cuts_the_middle(tmp_path):
    write_folder(tmp_path, size=(20, 26))
    task = tasks.load(f"imagefolder:{tmp_path}", size=20, crop=1.0, calibrate=2)
    (batch,) = task.batches("train", batch_size=1000)
    known = {image[:, 3:23].tobytes() for seed in (0, 1) for image in pixels(15, (20, 26, 3), seed)}
    mean, std = (np.array(task.preprocessing[k])[:, None, None] for k in ("mean", "std"))
    raw = np.rint((batch.inputs["input"] * std + mean) * 255).astype(np.uint8)
    assert all(np.ascontiguousarray(x.transpose(1, 2, 0)).tobytes() in known for x in raw)


@pytest.mark.parametrize("name", ["test", "val"])
def test_imagefolder_with_its_own_test_set(tmp_path, name):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / name, n=4, size=(9, 9))
    assert tasks.load(f"imagefolder:{tmp_path}", size=8).size("test") == 8


def test_a_broken_image_is_named(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:200])
    task = tasks.load(f"imagefolder:{tmp_path}", size=16)
    with pytest.raises(DataError, match=r"3\.png"):
        [list(task.batches(split)) for split in SPLITS]


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="one folder a class"):
        tasks.load(f"imagefolder:{tmp_path}")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"images .* were expected"):
        tasks.load(f"imagefolder:{tmp_path}")
    (tmp_path / "cat").rmdir()
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", ("cow",))
    with pytest.raises(DataError, match="cow"):
        tasks.load(f"imagefolder:{tmp_path}")


# Functions of the user's own

SCRIPT = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from fettle.tasks import Classification

generator = torch.Generator().manual_seed(0)

def tensors():
    return TensorDataset(torch.rand(50, 1, 4, 5, generator=generator), torch.arange(50) % 3)

def images():
    rng = np.random.default_rng(0)
    make = lambda n: [(Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)), i % 3)
                      for i in range(n)]
    return make(50), make(12)

def task():
    return Classification.from_arrays(np.random.default_rng(0).random((50, 7)), np.arange(50) % 3)

def broken():
    raise RuntimeError("out of cheese")

def number():
    return 7

def ragged():
    return [(np.zeros(1 + i % 2), 0) for i in range(50)]

def unpaired():
    return [3] * 50
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    return tmp_path / "mine.py"


def test_a_users_data_sets(script):
    tensors, images, own = (tasks.load(f"{script}:{f}") for f in ("tensors", "images", "task"))
    assert tensors.signature.inputs[0].shape == (-1, 1, 4, 5)
    assert images.signature.image == (3, 4, 5)
    assert images.size("test") == 12
    assert own.signature.inputs[0].shape == (-1, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "RuntimeError: out of cheese"),
        ("number", "got int"),
        ("ragged", "one shape"),
        ("unpaired", r"\(x, y\)"),
        ("absent", "no function `absent`; it has: .*broken"),
    ],
)
def test_a_users_mistakes_are_explained(script, name, message):
    with pytest.raises(DataError, match=message):
        tasks.load(f"{script}:{name}")


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match="there is none"):
        tasks.load("absent.py:data")


def test_a_function_of_an_importable_module(tmp_path, monkeypatch):
    (tmp_path / "fettle_test_module.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    assert tasks.load("fettle_test_module:tensors").signature.classes == 3


def test_noise_has_the_shape_and_the_classes_that_were_asked_for():
    task = tasks.load("noise:3x16x12:7")
    assert (task.signature.image, task.signature.classes) == ((3, 16, 12), 7)
    again = tasks.load("noise:3x16x12:7")
    assert task.fingerprint("test") == again.fingerprint("test")


@pytest.mark.parametrize("where", ["", "3x224", "3x0x8", "axbxc"])
def test_noise_of_no_shape_is_refused(where):
    with pytest.raises((DataError, KnobError), match="noise"):
        tasks.load(f"noise:{where}")
