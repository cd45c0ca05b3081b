"""A whole server: REST and gRPC beside each other, on one service."""

import numpy as np
import pytest
from tests.serve.http.whole import serving

grpcclient = pytest.importorskip("tritonclient.grpc")


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
