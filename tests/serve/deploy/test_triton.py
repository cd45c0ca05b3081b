"""A Triton model repository: what its configuration says, and that the file in it runs."""

import re
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from fettle.core.arrays import TensorSpec
from fettle.core.bundle import Bundle, write_manifest
from fettle.core.errors import BundleError, InputError, KnobError
from fettle.core.shelf import DEPLOYMENTS
from fettle.serve.deploy import deploy


def written(bundle, out, **knobs):
    done = deploy(DEPLOYMENTS.make("triton", **knobs), bundle, "digits", out)
    return done, (out / "digits" / "config.pbtxt").read_text()


def test_the_repository_has_tritons_layout(proven, tmp_path):
    done, config = written(proven, tmp_path / "repository")
    assert done.files == ("digits/1/model.onnx", "digits/config.pbtxt")
    assert f"-v {tmp_path}/repository:/models:ro" in done.commands[0]
    assert 'name: "digits"' in config
    assert 'backend: "onnxruntime"' in config
    assert "max_batch_size: 8" in config
    assert "preferred_batch_size: [ 2, 4, 8 ]" in config
    assert "max_queue_delay_microseconds: 0" in config
    assert '{ name: "input" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] }' in config
    assert "KIND_CPU count: 1" in config


def test_the_file_in_it_computes_what_the_bundle_does(proven, tmp_path):
    written(proven, tmp_path / "repository")
    path = tmp_path / "repository" / "digits" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs, outputs = proven.golden()
    name = next(iter(outputs))
    np.testing.assert_allclose(session.run([name], dict(inputs))[0], outputs[name], atol=1e-4)


def test_the_brackets_are_closed(proven, tmp_path):
    for kind in ("cpu", "gpu"):
        _, config = written(proven, tmp_path / kind, kind=kind, threads=2)
        plain = re.sub(r'"[^"]*"', "", config)
        assert plain.count("{") == plain.count("}")
        assert plain.count("[") == plain.count("]")


def test_a_gpu_gets_the_master_and_tensorrt(proven, tmp_path):
    done, config = written(proven, tmp_path / "repository", kind="gpu")
    assert 'name: "tensorrt"' in config
    assert "--gpus all" in done.commands[0]
    master = proven.model_path.read_bytes()
    assert (tmp_path / "repository" / "digits" / "1" / "model.onnx").read_bytes() == master


def test_labels_lie_beside_the_configuration(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "best", labels=tuple("abcdefghij"))
    done, config = written(bundle, tmp_path / "repository")
    assert "digits/labels.txt" in done.files
    assert 'label_filename: "labels.txt"' in config


def test_without_a_checklist_one_example_at_a_time(make_bundle, tmp_path):
    _, config = written(make_bundle(tmp_path / "best", checks=()), tmp_path / "repository")
    assert "max_batch_size: 1" in config
    assert "dynamic_batching" not in config


def test_a_fixed_batch_is_a_dimension(make_bundle, tmp_path):
    fixed = (TensorSpec("input", "float32", (4, 1, 8, 8)),)
    bundle = make_bundle(tmp_path / "best", inputs=fixed)
    _, config = written(bundle, tmp_path / "repository")
    assert "max_batch_size: 0" in config
    assert "dims: [ 4, 1, 8, 8 ]" in config


def test_openvinos_bundles_go_to_its_backend(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "best", runtime="openvino")
    assert 'backend: "openvino"' in written(bundle, tmp_path / "repository")[1]


def test_what_is_not_proven_is_refused_unless_asked_for(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "best", verdict=None)
    way = DEPLOYMENTS.make("triton")
    with pytest.raises(BundleError, match="--allow-unproven"):
        deploy(way, bundle, "digits", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    assert deploy(way, bundle, "digits", tmp_path / "repository", allow_unproven=True).files


@pytest.mark.parametrize("name", ["", "../x", "A model", "x" * 64, "-x"])
def test_names_that_servers_would_not_take_are_refused(proven, tmp_path, name):
    with pytest.raises(InputError, match="--name"):
        deploy(DEPLOYMENTS.make("triton"), proven, name, tmp_path / "repository")


def test_a_folder_with_something_in_it_is_left_alone(proven, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="empty folder"):
        deploy(DEPLOYMENTS.make("triton"), proven, "digits", tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


def test_types_that_triton_does_not_know_are_named(make_bundle, tmp_path):
    odd = (TensorSpec("input", "complex64", (-1, 4)),)
    bundle = make_bundle(tmp_path / "best", inputs=odd)
    with pytest.raises(BundleError, match="complex64"):
        written(bundle, tmp_path / "repository")


def test_knobs_have_bounds():
    with pytest.raises(KnobError, match="instances"):
        DEPLOYMENTS.make("triton", instances=0)


def test_the_bundle_is_verified_before(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "best")
    write_manifest(bundle.path, replace(bundle.manifest, files={}))
    with pytest.raises(BundleError):
        Bundle.open(bundle.path)
