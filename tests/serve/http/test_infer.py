"""A whole server, asked by the clients that people use."""

import contextlib
import json

import numpy as np
import pytest
from tests.serve.http.conftest import parsed, received
from tests.serve.http.whole import INFER, Served, serving

from fettle.monitor.log import open_log

http = pytest.importorskip("tritonclient.http", reason="the real client of the protocol")


@contextlib.contextmanager
def asking(run):
    """The real client; when it is collected, on whatever thread, gevent must not be asked again."""
    client = http.InferenceServerClient(f"127.0.0.1:{run.port}", concurrency=2)
    try:
        yield client
    finally:
        client.close()
        client.close = lambda: None


@pytest.fixture(scope="module")
def served(proven, tmp_path_factory):
    inputs, outputs = proven.golden()
    with (
        serving(
            [f"m={proven.path}"], log=tmp_path_factory.mktemp("log") / "p.db", body_bytes=1 << 20
        ) as run,
        asking(run) as client,
    ):
        yield Served(run, client, inputs, outputs)


def ask(served, binary_in, binary_out, rows=3, **how):
    array = np.ascontiguousarray(served.inputs[served.name][:rows])
    tensor = http.InferInput(served.name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary_in)
    names = list(served.outputs)
    wanted = [http.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    result = served.client.infer("m", [tensor], outputs=wanted, **how)
    return result, {name: result.as_numpy(name) for name in names}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_real_client_gets_the_golden_outputs(served, binary_in, binary_out):
    result, outputs = ask(served, binary_in, binary_out, request_id="r-7")
    assert result.get_response()["id"] == "r-7"
    assert result.get_response()["model_name"] == "m"
    for name, array in outputs.items():
        np.testing.assert_allclose(array, served.outputs[name][:3], atol=1e-5)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(served, algorithm):
    _, outputs = ask(served, True, True, request_compression_algorithm=algorithm)
    for name, array in outputs.items():
        np.testing.assert_allclose(array, served.outputs[name][:3], atol=1e-5)


def test_the_real_client_finds_all_it_asks_about(served):
    client = served.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    described = client.get_model_metadata("m")
    assert [each["name"] for each in described["inputs"]] == [served.name]
    assert client.get_model_config("m")["max_batch_size"] == 8
    assert client.get_model_repository_index()[0]["name"] == "m"
    ask(served, True, True)
    (statistics,) = client.get_inference_statistics("m")["model_stats"]
    assert statistics["inference_stats"]["success"]["count"] >= 1
    assert client.get_inference_statistics()["model_stats"]


def test_what_the_real_client_gets_wrong_is_told_in_the_error(served):
    tensor = http.InferInput(served.name, [1, 2], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 2), np.float32))
    with pytest.raises(http.InferenceServerException, match="expects the shape") as refused:
        served.client.infer("m", [tensor])
    assert refused.value.status() == "400"
    with pytest.raises(http.InferenceServerException, match="no model `other`"):
        served.client.infer("other", [tensor])


def test_unloading_and_loading_by_the_real_client(proven):
    with serving([f"m={proven.path}"]) as run, asking(run) as client:
        client.unload_model("m")
        assert not client.is_model_ready("m")
        client.load_model("m")
        assert client.is_model_ready("m")
        with pytest.raises(http.InferenceServerException, match="no parameters were expected"):
            client.load_model("m", config="{}")
        with pytest.raises(http.InferenceServerException):
            client.load_model("/etc/passwd")


def test_a_json_request_by_hand(served):
    response = served.post(INFER, served.document())
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    (output,) = response.json["outputs"]
    golden = served.outputs[output["name"]][:1]
    assert output["shape"] == list(golden.shape)
    np.testing.assert_allclose(np.ravel(output["data"]), golden.ravel(), atol=1e-5)


def test_a_body_in_chunks_and_in_halves(served):
    raw = json.dumps(served.document()).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (raw[:7], raw[7:])]
    (response,) = parsed(served.run.talk(chunked, *parts, b"0\r\n\r\n"))
    assert response.status == 200
    with served.run.connect() as sock:
        sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(raw) + raw[:9])
        sock.sendall(raw[9:])
        (response,) = parsed(received(sock))
    assert response.status == 200


def test_metrics_tell_what_was_done(served):
    ask(served, True, True)
    text = served.get("/metrics").body.decode()
    for name in ("nv_inference_request_success", "nv_inference_request_failure",
                 "nv_inference_count", "fettle_request_duration_seconds_bucket",
                 "fettle_log_written_total", "fettle_connections"):  # fmt: skip
        assert f"\n{name}{{" in text or f"\n{name} " in text, name


def test_every_answer_and_refusal_is_in_the_log_and_feedback_joins_it(proven, tmp_path):
    inputs, _ = proven.golden()
    log = tmp_path / "log.db"
    with serving([f"m={proven.path}"], log=log) as run:
        served = Served(run, None, inputs, {})
        for number in range(5):
            body = {**served.document(), "id": f"r{number}"}
            assert served.post(INFER, body).status == 200
        labels = {"labels": [{"id": "r3", "label": 1}, {"id": "r9", "label": 2}]}
        assert served.post("/v2/models/m/feedback", labels).json == {"taken": 2}
    rows = {row.id: row for row in open_log(log).rows()}
    assert set(rows) == {f"r{number}" for number in range(5)}
    assert rows["r3"].label == 1
    assert rows["r0"].status == "ok"
    assert rows["r0"].protocol == "rest"


def test_late_requests_are_504(served):
    response = served.post(INFER, {**served.document(), "parameters": {"timeout": 1}})
    assert response.status == 504
    assert response.error
