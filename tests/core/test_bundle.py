import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fettle.core.arrays import TensorSpec
from fettle.core.bundle import (
    Bundle,
    Manifest,
    is_bundle,
    load_arrays,
    write_bundle,
    write_manifest,
)
from fettle.core.errors import BundleError
from fettle.core.hashing import file_sha256, json_sha256

INPUTS = (TensorSpec("input", "float32", (-1, 1, 8, 8)),)
OUTPUTS = (TensorSpec("logits", "float32", (-1, 10)),)
X = np.arange(128, dtype=np.float32).reshape(2, 1, 8, 8)
Y = np.arange(20, dtype=np.float32).reshape(2, 10)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "notes").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"not really a model")
    (folder / "notes" / "readme.md").write_text("hello")
    np.savez(folder / "golden.npz", **{"input/input": X, "output/logits": Y})
    np.savez(folder / "reference.npz", **{"input/input": X})
    return folder


@pytest.fixture
def manifest():
    return Manifest(
        INPUTS,
        OUTPUTS,
        "quantize.static",
        runtime="openvino",
        labels=("a", "b"),
        measurements={"p50": 1.25, "n": 1000},
        verdict={"outcome": "pass"},
        checks=({"name": "accuracy", "passed": True},),
        lowering={"onnxruntime": ["graph.lower_ort_x86"]},
    )


@pytest.fixture
def bundle(tmp_path, source, manifest):
    return write_bundle(tmp_path / "bundle", manifest, source)


def edit(bundle, change, reseal=False):
    """Edit the manifest as a person with a text editor does, or one who knows how to seal it."""
    file = bundle.path / "manifest.json"
    data = json.loads(file.read_text())
    change(data)
    if reseal:
        data["seal"] = json_sha256({k: v for k, v in data.items() if k != "seal"})
    file.write_text(json.dumps(data))


def refused(bundle, *words):
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle.path)
    for word in words:
        assert word in str(caught.value)


def test_what_is_written_is_opened(bundle, manifest, source):
    opened = Bundle.open(bundle.path)
    assert opened == bundle
    assert opened.model_path.read_bytes() == b"not really a model"
    assert opened.manifest.files == {
        name: file_sha256(source / name)
        for name in ("golden.npz", "model.onnx", "notes/readme.md", "reference.npz")
    }
    for name in ("inputs", "outputs", "labels", "measurements", "verdict", "checks", "lowering"):
        assert getattr(opened.manifest, name) == getattr(manifest, name)


def test_golden_and_reference(bundle):
    inputs, outputs = bundle.golden()
    np.testing.assert_array_equal(inputs["input"], X)
    np.testing.assert_array_equal(outputs["logits"], Y)
    np.testing.assert_array_equal(bundle.reference()["input/input"], X)


def test_a_copy_is_as_good(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "elsewhere")
    assert Bundle.open(str(tmp_path / "elsewhere")).manifest == bundle.manifest


def test_is_bundle(bundle, tmp_path):
    assert is_bundle(bundle.path)
    assert not is_bundle(tmp_path)
    assert not is_bundle(bundle.model_path)
    assert not is_bundle(tmp_path / "missing")


def test_a_bundle_needs_a_model(tmp_path, source, manifest):
    (source / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"needs `model\.onnx`"):
        write_bundle(tmp_path / "bundle", manifest, source)
    assert not (tmp_path / "bundle").exists()


def test_a_failed_write_leaves_the_old_bundle(bundle, tmp_path, source, manifest):
    unwritable = Manifest(INPUTS, OUTPUTS, "x", measurements={"p50": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_bundle(bundle.path, unwritable, source)
    assert Bundle.open(bundle.path) == bundle
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "source"]


@pytest.mark.parametrize("kind", ["folder", "file", "missing"])
def test_what_is_no_bundle(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    if kind == "file":
        path.write_text("{}")
    with pytest.raises(BundleError, match="is no bundle"):
        Bundle.open(path)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "notes/readme.md"])
def test_a_changed_byte_is_noticed(bundle, name):
    file = bundle.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused(bundle, f"`{name}`", "SHA-256 differs")


def test_a_missing_file_is_noticed(bundle):
    (bundle.path / "golden.npz").unlink()
    refused(bundle, "`golden.npz` is missing")


@pytest.mark.parametrize("name", ["extra.bin", "notes/.hidden", "model.onnx.data"])
def test_a_stray_file_is_noticed(bundle, name):
    (bundle.path / name).write_text("x")
    refused(bundle, name, "doesn't list")


def test_a_link_that_leaves_the_folder_is_refused(bundle, tmp_path):
    outside = tmp_path / "outside.onnx"
    shutil.move(bundle.model_path, outside)
    bundle.model_path.symlink_to(outside)  # with the very contents that the manifest vouches for
    refused(bundle, "`model.onnx`", "leaves the bundle")


def test_a_link_to_a_folder_outside_is_refused(bundle, tmp_path):
    (bundle.path / "more").symlink_to(tmp_path / "source")
    refused(bundle, "more", "doesn't list")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "notes/../../secret", "a\0b"])
def test_a_listed_path_that_leaves_the_folder_is_refused(bundle, tmp_path, name):
    (tmp_path / "secret").write_text("s")
    digest = file_sha256(tmp_path / "secret")
    edit(bundle, lambda data: data["files"].update({name: digest}), reseal=True)
    refused(bundle, repr(name), "leaves the bundle")


EDITS = {
    "a measurement": lambda data: data["measurements"].update(p50=0.25),
    "the verdict": lambda data: data["verdict"].update(outcome="fail"),
    "a check": lambda data: data["checks"].append({"name": "more", "passed": True}),
    "a hash": lambda data: data["files"].update({"model.onnx": "0" * 64}),
    "a label": lambda data: data["labels"].reverse(),
    "a new field": lambda data: data.update(approved_by="me"),
    "a field left out": lambda data: data.pop("labels"),
    "the seal": lambda data: data.update(seal="0" * 64),
    "the seal's type": lambda data: data.update(seal=None),
    "a number's type": lambda data: data["measurements"].update(n=1000.0),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_an_edited_manifest_is_noticed(bundle, change):
    edit(bundle, change)
    refused(bundle, "manifest.json", "was sealed", "anew")


def test_space_and_order_of_the_manifest_do_not_matter(bundle):
    file = bundle.path / "manifest.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(data.items())), indent=7))
    assert Bundle.open(bundle.path) == bundle


def test_fields_of_a_newer_version_are_sealed_and_survive(bundle):
    edit(bundle, lambda data: data.update(carbon={"kg": 0.5}), reseal=True)
    opened = Bundle.open(bundle.path)
    assert opened.manifest.extra == {"carbon": {"kg": 0.5}}
    write_manifest(bundle.path, opened.manifest)
    assert Bundle.open(bundle.path) == opened
    edit(bundle, lambda data: data["carbon"].update(kg=0.1))
    refused(bundle, "was sealed")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\x00é", max_size=3), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["p50", "n", "z"]), JSON))
@settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_measured_is_sealed_and_read_back(bundle, measurements):
    manifest = Manifest(INPUTS, OUTPUTS, "", measurements=measurements, files=bundle.manifest.files)
    write_manifest(bundle.path, manifest)
    assert Bundle.open(bundle.path).manifest == manifest


def test_keys_that_are_no_text_become_text_before_the_seal(bundle):
    manifest = Manifest(INPUTS, OUTPUTS, "", data={9: 1, 10: 2}, files=bundle.manifest.files)
    write_manifest(bundle.path, manifest)
    assert Bundle.open(bundle.path).manifest.data == {"9": 1, "10": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "corrupted"),
        ("{", "corrupted"),
        ("[]", "corrupted"),
        ("null", "corrupted"),
        ("{}", "lacks schema, seal, files, inputs, outputs, recipe"),
        ('{"schema": 2}', "schema 2, this fettle reads 1: upgrade"),
        ('{"schema": "x"}', "schema x"),
        ("[" * 100_000, "corrupted"),
        ("\ud800", "corrupted"),
    ],
)
def test_a_broken_manifest_is_a_bundle_error(bundle, text, words):
    (bundle.path / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(bundle, "manifest.json", words)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(files=[]),
        lambda data: data.update(files={}),
        lambda data: data.update(files=None),
        lambda data: data["files"].update({"model.onnx": None}),
        lambda data: data.update(inputs=None),
        lambda data: data.update(inputs=[{"name": "x"}]),
        lambda data: data.update(outputs=7),
        lambda data: data.update(labels=3),
    ],
)
def test_a_sealed_manifest_may_still_be_wrong(bundle, change):
    edit(bundle, change, reseal=True)
    refused(bundle, "anew")


def test_a_truncated_manifest_is_a_bundle_error(bundle):
    file = bundle.path / "manifest.json"
    file.write_bytes(file.read_bytes()[:-40])
    refused(bundle, "corrupted")


def test_arrays_that_are_pickles_are_refused(tmp_path):
    fired = tmp_path / "fired"

    class Bomb:
        def __reduce__(self):
            return (fired.touch, ())

    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(BundleError, match="can't be read as arrays"):
            load_arrays(tmp_path / name)
    assert not fired.exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_arrays_are_refused(bundle, keep):
    file = bundle.path / "golden.npz"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(BundleError, match="can't be read as arrays"):
        bundle.golden()


def test_arrays_with_a_wrong_checksum_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError):
        load_arrays(path)


def test_a_foreign_file_in_the_archive_is_refused_or_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00garbage")
    with pytest.raises(BundleError):
        load_arrays(tmp_path / "a.npz")


def test_missing_arrays_are_refused(tmp_path):
    with pytest.raises(BundleError):
        load_arrays(tmp_path / "none.npz")
