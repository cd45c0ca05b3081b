"""Triton's own gRPC client asks, and gets what a model gave."""

import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from fettle.core.errors import ModelError
from fettle.serve.batcher import Timing
from fettle.serve.errors import Broken, Late, NotReady
from fettle.serve.protocol.datatypes import NUMPY
from fettle.serve.protocol.request import Wanted


def sent(datatype, array):
    tensor = triton.InferInput(datatype.lower(), list(array.shape), datatype)
    return tensor.set_data_from_numpy(array.astype(np.float32) if datatype == "BF16" else array)


def returned(array):
    """Return what the client makes of an array that comes back."""
    if array.dtype == object:
        return np.array([[text.encode() for text in row] for row in array], object)
    return array.astype(np.float32) if array.dtype == NUMPY["BF16"] else array


def one(rows=1):
    return [sent("FP32", np.arange(4 * rows, dtype=np.float32).reshape(rows, 4))]


def test_raw_tensors_of_every_type_go_there_and_back(client, values):
    found = client.infer("all", [sent(name, values(name)) for name in NUMPY], request_id="r")
    for name in NUMPY:
        np.testing.assert_array_equal(found.as_numpy(name.lower()), returned(values(name)))
    assert found.get_response().id == "r"


def test_parameters_outputs_and_deadline_reach_the_service(client, service):
    wanted = [triton.InferRequestedOutput("fp32", class_count=2)]
    found = client.infer(
        "one",
        one(2),
        model_version="1",
        outputs=wanted,
        timeout=1_000_000,
        client_timeout=20,
        parameters={"mine": "x"},
        headers={"fettle-key": "me"},
    )
    name, version, request, meta = service.seen[-1]
    assert (name, version) == ("one", "1")
    assert request.outputs == (Wanted("fp32", binary=True, classification=2),)
    assert request.parameters == {"mine": "x", "timeout": 1_000_000}
    assert (meta.key, meta.protocol) == ("me", "grpc")
    assert 0 < meta.deadline - meta.received <= 1.0
    assert meta.peer.startswith("ipv4:127.0.0.1:")
    texts = [[text.decode() for text in row] for row in found.as_numpy("fp32")]
    assert texts == [["3.000000:3", "2.000000:2"], ["7.000000:3", "6.000000:2"]]


def test_the_callers_own_deadline_counts(client, service):
    client.infer("one", one(), client_timeout=5)
    meta = service.seen[-1][3]
    assert meta.deadline - meta.received == pytest.approx(5, abs=0.5)
    client.infer("one", one())
    meta = service.seen[-1][3]
    assert meta.deadline - meta.received == pytest.approx(service.settings.deadline_seconds)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NotReady("it loads"), "UNAVAILABLE", "it loads"),
        (Late("too late"), "DEADLINE_EXCEEDED", "too late"),
        (Broken("the engine failed"), "INTERNAL", "the engine failed"),
        (ModelError("an odd model"), "INTERNAL", "an odd model"),
        (ZeroDivisionError("our own affair"), "INTERNAL", "the server failed on this request"),
    ],
)
def test_errors_are_told_without_a_traceback(client, service, error, code, said):
    service.fails = error
    with pytest.raises(InferenceServerException) as caught:
        client.infer("one", one())
    assert caught.value.status() == f"StatusCode.{code}"
    assert caught.value.message() == said


def test_a_full_queue_says_when_to_come_again(port, service, refusal):
    service.fails = refusal
    request = service_pb2.ModelInferRequest(model_name="one")
    contents = request.inputs.add(name="fp32", datatype="FP32", shape=[1, 4]).contents
    contents.fp32_contents.extend([1, 2, 3, 4])
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    with channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after", "7") in [tuple(each) for each in caught.value.trailing_metadata()]


def test_what_is_malformed_is_refused_and_counted(client, service):
    before = service.counted["one"].fail.count
    for inputs, code in (
        ([], "INVALID_ARGUMENT"),
        (one(9), "INVALID_ARGUMENT"),
        ([sent("INT32", np.zeros((1, 4), np.int32))], "INVALID_ARGUMENT"),
        ([sent("FP32", np.full((1, 4), np.nan, np.float32))], "INVALID_ARGUMENT"),
        (one() + one(), "INVALID_ARGUMENT"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            client.infer("one", inputs)
        assert caught.value.status() == f"StatusCode.{code}"
        assert "expect" in caught.value.message()
    assert service.counted["one"].fail.count == before + 5
    assert service.unread[-5:] == [("one", "BadRequest", "grpc", "")] * 5
    assert not service.seen


def test_each_call_has_a_line_in_the_access_log(client, service):
    client.infer("one", one(), request_id="mine")
    with pytest.raises(InferenceServerException):
        client.infer("one", one(9))
    with pytest.raises(InferenceServerException):
        client.infer("other", one())
    told = [
        (line.method, line.path.rpartition("/")[2], line.status, line.id) for line in service.lines
    ]
    assert told == [
        ("GRPC", "ModelInfer", 200, "mine"),
        ("GRPC", "ModelInfer", 400, ""),
        ("GRPC", "ModelInfer", 404, ""),
    ]
    first = service.lines[0]
    assert first.taken > 16
    assert first.given > 16
    assert first.peer.startswith("ipv4:")


def test_bodies_count_while_they_are_held(client, service):
    service.room.held = service.settings.bodies_bytes
    try:
        with pytest.raises(InferenceServerException, match="set apart"):
            client.infer("one", one())
        assert service.lines[-1].status == 429
    finally:
        service.room.held = 0
    client.infer("one", one())
    assert service.room.held == 0


def test_a_message_past_the_limit_is_refused_and_the_next_is_answered(client):
    tensor = triton.InferInput("fp32", [1, 1 << 20], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1 << 20), np.float32))
    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        client.infer("one", [tensor])
    client.infer("one", one())


def test_questions_about_server_and_models(client, service):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("one")
    assert not client.is_model_ready("none")
    service.up = False
    assert not client.is_server_ready()
    assert list(client.get_server_metadata().extensions) == ["statistics"]
    found = client.get_model_metadata("one", as_json=True)
    assert found["inputs"] == [{"name": "fp32", "datatype": "FP32", "shape": ["-1", "4"]}]
    config = client.get_model_config("one").config
    assert (config.max_batch_size, config.backend) == (8, "onnxruntime")
    assert config.input[0].data_type == 11
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.get_model_metadata("none")


def test_statistics_are_those_of_rest(client, service):
    service.counted["one"].succeeded(3, Timing(0.25, 0.5, 3), 1.0)
    found = client.get_inference_statistics("one").model_stats
    assert [each.name for each in found] == ["one"]
    assert found[0].inference_count == service.counted["one"].inferences
    assert found[0].inference_stats.queue.ns == service.counted["one"].queue.ns > 0
    assert found[0].inference_stats.fail.count == service.counted["one"].fail.count
    assert len(client.get_inference_statistics().model_stats) == 2


def test_the_repository_is_listed_loaded_and_unloaded(client, service):
    models = client.get_model_repository_index().models
    assert [(each.name, each.state) for each in models] == [("all", "READY"), ("one", "READY")]
    client.load_model("one")
    assert service.loaded == ["one"]
    client.unload_model("one")
    assert service.loaded == []
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        client.load_model("one", config='{"backend": "python"}')
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        client.load_model("one", config="{}", files={"file:1/model.onnx": b"evil"})


def test_what_is_not_offered_says_so(client):
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        client.register_system_shared_memory("region", "/region", 64)


def test_a_stream_answers_in_turn_and_goes_on_after_an_error(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("one", one(), request_id="first")
    client.async_stream_infer("none", one(), request_id="second")
    client.async_stream_infer("one", one(), request_id="third")
    found = [answers.get(timeout=10) for _ in range(3)]
    client.stop_stream()
    assert [error is None for _, error in found] == [True, False, True]
    assert "no model" in str(found[1][1])
    assert [result.get_response().id for result, _ in found if result] == ["first", "third"]
