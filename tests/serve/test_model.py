"""Opening a bundle to serve it: nothing is taken on trust."""

from dataclasses import replace

import numpy as np
import pytest

from fettle.core.bundle import Bundle, write_bundle, write_manifest
from fettle.core.errors import BundleError, CheckFailed, MissingError
from fettle.serve import model as module
from fettle.serve.model import Model, sha_of
from fettle.serve.settings import Settings

CAREFUL, CARELESS = Settings(threads=1), Settings(threads=1, allow_unproven=True)


@pytest.fixture
def opened(proven):
    model = Model.load(proven.path, CAREFUL, "digits", "3")
    yield model
    model.close()


def test_it_answers_as_it_was_proven(opened, proven):
    inputs, outputs = proven.golden()
    found = opened.run(inputs)
    for name, array in outputs.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-3)


def test_it_says_what_it_is(opened, proven):
    assert (opened.name, opened.version) == ("digits", "3")
    assert opened.sha == sha_of(proven.manifest)
    assert opened.signature.inputs == proven.manifest.inputs
    assert opened.warnings == ()
    assert opened.callers >= 1


def test_only_sizes_of_the_checklist_are_used(opened):
    assert opened.warm.sizes.proven == (1, 2, 4, 8)
    assert opened.signature.max_batch == 8
    assert opened.warm.shared


def test_fewer_rows_can_be_asked_for(proven):
    model = Model.load(proven.path, replace(CAREFUL, max_batch=3))
    assert model.warm.sizes.proven == (1, 2)
    model.close()


def test_a_bundle_without_a_checklist_is_warmed_at_powers_of_two(make_bundle, tmp_path):
    path = make_bundle(tmp_path / "best", checks=()).path
    model = Model.load(path, replace(CAREFUL, max_batch=6))
    assert model.warm.sizes.proven == (1, 2, 4, 6)
    model.close()


def test_its_folder_names_it(make_bundle, tmp_path):
    study = tmp_path / "digits"
    study.mkdir()
    model = Model.load(make_bundle(study / "best").path, CAREFUL)
    assert model.name == "digits"
    model.close()


@pytest.mark.parametrize("outcome", ["fail", "inconclusive", None])
def test_what_is_not_proven_is_refused_unless_allowed(make_bundle, tmp_path, outcome):
    verdict = {"outcome": outcome} if outcome else None
    path = make_bundle(tmp_path / "best", verdict=verdict).path
    with pytest.raises(CheckFailed, match="--allow-unproven"):
        Model.load(path, CAREFUL)
    model = Model.load(path, CARELESS)
    assert any("not pass" in warning for warning in model.warnings)
    model.close()


def test_a_processor_that_computes_something_else_is_caught(proven, tmp_path):
    inputs, outputs = proven.golden()
    (tmp_path / "files").mkdir()
    for name in ("model.onnx", "reference.npz"):
        (tmp_path / "files" / name).write_bytes((proven.path / name).read_bytes())
    named = {f"input/{k}": v for k, v in inputs.items()}
    named |= {f"output/{k}": np.roll(v, 1, axis=1) for k, v in outputs.items()}
    np.savez(tmp_path / "files" / "golden.npz", allow_pickle=False, **named)
    path = write_bundle(tmp_path / "best", proven.manifest, tmp_path / "files").path
    with pytest.raises(CheckFailed, match="computes something else"):
        Model.load(path, CAREFUL)
    model = Model.load(path, CARELESS)
    assert any("computes something else" in warning for warning in model.warnings)
    model.close()


def test_a_damaged_file_is_refused_even_when_unproven_is_allowed(make_bundle, tmp_path):
    path = make_bundle(tmp_path / "best").path
    file = path / "model.onnx"
    file.write_bytes(file.read_bytes()[:-7] + b"damaged")
    with pytest.raises(BundleError):
        Model.load(path, CARELESS)


def test_a_folder_that_is_swapped_while_it_is_read_is_refused(make_bundle, tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "best")
    session = module._session

    def swapping(*given):
        write_manifest(bundle.path, replace(bundle.manifest, recipe="another @ onnxruntime"))
        return session(*given)

    monkeypatch.setattr(module, "_session", swapping)
    with pytest.raises(BundleError, match="changed while it was loaded"):
        Model.load(bundle.path, CAREFUL)


def test_an_engine_that_is_not_here_is_named(make_bundle, tmp_path):
    path = make_bundle(tmp_path / "best", runtime="tensorrt").path
    with pytest.raises(MissingError, match="tensorrt"):
        Model.load(path, CAREFUL)


def test_the_hash_tells_bundles_apart(proven):
    manifest = Bundle.open(proven.path).manifest
    assert sha_of(manifest) == sha_of(proven.manifest)
    assert sha_of(replace(manifest, recipe="other")) != sha_of(manifest)
