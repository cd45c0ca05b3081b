"""A whole server: REST and gRPC beside each other, on one service."""

import asyncio
from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests.serve.http.test_infer import asking
from tests.serve.http.whole import serving

from fettle.core.bundle import write_bundle
from fettle.core.errors import FettleError
from fettle.serve.rollout.settings import RolloutSettings
from fettle.serve.running import serve
from fettle.serve.settings import Settings

grpcclient = pytest.importorskip("tritonclient.grpc")
httpclient = pytest.importorskip("tritonclient.http")


@pytest.fixture(scope="module")
def run(proven):
    with serving([f"m={proven.path}"], grpc_port=0) as running:
        yield running


def asked(proven):
    (name, array), *_ = proven.golden()[0].items()
    given = grpcclient.InferInput(name, list(array[:2].shape), "FP32")
    given.set_data_from_numpy(array[:2])
    return given


def test_both_protocols_answer_and_are_counted_together(run, proven):
    with grpcclient.InferenceServerClient(run.server.grpc) as client:
        assert client.is_model_ready("m")
        answer = client.infer("m", [asked(proven)])
        name, expected = next(iter(proven.golden()[1].items()))
        np.testing.assert_allclose(answer.as_numpy(name), expected[:2], rtol=1e-3, atol=1e-3)
        told = client.get_inference_statistics("m", as_json=True)["model_stats"][0]
    assert int(told["inference_count"]) >= 2
    rest = run.talk(
        b"GET /v2/models/m/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert b'"inference_count":2' in rest


def test_without_a_port_there_is_no_grpc(proven):
    with serving([f"m={proven.path}"]) as running:
        assert running.server.grpc is None


def test_a_caller_keeps_to_its_arm_over_both_protocols(proven, opposite):
    wanted = RolloutSettings(ab=str(opposite.path), split=0.5)
    (name, array), *_ = proven.golden()[0].items()
    (scores, expected), *_ = proven.golden()[1].items()
    with (
        serving([f"m={proven.path}"], wanted, grpc_port=0) as running,
        grpcclient.InferenceServerClient(running.server.grpc) as one,
        asking(running) as other,
    ):
        arms = []
        for number in range(24):
            key = {"fettle-key": f"user-{number}"}
            right = []
            for client, module in ((one, grpcclient), (other, httpclient)):
                given = module.InferInput(name, list(array[:1].shape), "FP32")
                given.set_data_from_numpy(array[:1])
                found = client.infer("m", [given], headers=key).as_numpy(scores)
                right.append(bool(np.allclose(found, expected[:1], atol=1e-3)))
            arms.append(tuple(right))
    assert set(arms) == {(True, True), (False, False)}
    assert 4 <= arms.count((False, False)) <= 20


def refused(bundles, **wanted):
    """Return what `serve` says when it doesn't come up."""

    def announce(server, repository):
        raise AssertionError("it came up")

    settings = Settings(port=0, access_log=False, threads=1)
    with pytest.raises(FettleError) as error:
        asyncio.run(serve([str(b) for b in bundles], settings, announce, RolloutSettings(**wanted)))
    return str(error.value)


@pytest.fixture(scope="module")
def renamed(tmp_path_factory, proven):
    """A bundle of the same network, whose input has another name."""
    folder = tmp_path_factory.mktemp("renamed") / "files"
    folder.mkdir()
    model = onnx.load(proven.model_path)
    (given,) = model.graph.input
    for node in model.graph.node:
        node.input[:] = ["other" if name == given.name else name for name in node.input]
    old, given.name = given.name, "other"
    onnx.save(model, folder / "model.onnx")
    inputs, outputs = proven.golden()
    named = {"input/other": inputs[old], **{f"output/{k}": v for k, v in outputs.items()}}
    for file in ("golden.npz", "reference.npz"):
        np.savez(folder / file, allow_pickle=False, **named)
    specs = (replace(proven.manifest.inputs[0], name="other"),)
    return write_bundle(folder.parent / "best", replace(proven.manifest, inputs=specs), folder)


@pytest.mark.parametrize("kind", ["shadow", "ab", "canary"])
def test_a_bundle_with_other_inputs_can_not_ride_along(proven, renamed, kind):
    said = refused([f"m={proven.path}"], **{kind: str(renamed.path)})
    assert f"`--{kind}` expects what takes and gives the same as `m`" in said
    assert "other float32" in said


def test_what_rides_along_is_proven_too(proven, make_bundle, tmp_path):
    doubtful = make_bundle(tmp_path / "b", verdict={**proven.manifest.verdict, "outcome": "fail"})
    said = refused([f"m={proven.path}"], shadow=str(doubtful.path))
    assert "is fail, not pass" in said
    assert "--allow-unproven" in said


def test_a_folder_that_is_missing_is_told_before_anything_is_loaded(proven, tmp_path):
    said = refused([f"m={proven.path}"], canary=str(tmp_path / "nothing"))
    assert said.startswith("`--canary` expects a bundle, and there is none at ")
    assert "one of the models m" in refused([f"m={proven.path}"], ab=f"other={proven.path}")


def test_what_is_missed_and_lost_is_told_to_prometheus(proven):
    with serving([f"m={proven.path}"], RolloutSettings(shadow=str(proven.path))) as run:
        handlers = run.server.app.handlers
        shadow = handlers._riding.arms["shadow"].repository
        for count, repository in enumerate([handlers._service.repository, shadow]):
            repository.find("m").model.session.lost = count  # as that of worker processes has
        told = run.talk(
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ).decode()
    for count, part in enumerate(("only", "shadow")):
        assert f'fettle_workers_lost_total{{model="m",version="1",part="{part}"}} {count}' in told
    assert 'fettle_observer_dropped_total{observer="Shadow"} 0' in told
