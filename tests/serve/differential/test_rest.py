"""The same requests over HTTP to this server and to a real Triton: what differs is named here."""

import json

import numpy as np
import pytest
import tritonclient.http as triton

INFER = "/v2/models/digits/infer"
TYPES = {
    "int64": np.array([[-(2**62), 3]]),
    "int8": np.array([[-128, 5]], np.int8),
    "uint16": np.array([[65535, 1]], np.uint16),
    "bool": np.array([[True, False]]),
    "fp16": np.array([[1.5, -2]], np.float16),
    "fp64": np.array([[1e300, -1]]),
}
OTHER_MODEL = "a model that isn't there is 404 here, whatever is asked of it"
OWN_MISTAKE = "a caller's mistake is 4xx here; Triton's parser reports some as its own failure"

ASKED = [
    ("GET", "/v2", None),
    ("GET", "/v2/health/live", None),
    ("GET", "/v2/health/ready", None),
    ("GET", "/v2/models/digits", None),
    ("GET", "/v2/models/digits/versions/1", None),
    ("GET", "/v2/models/types", None),
    ("GET", "/v2/models/digits/ready", None),
    ("GET", "/v2/models/digits/versions/1/ready", None),
    ("GET", "/v2/models/digits/config", None),
    ("GET", "/v2/models/types/config", None),
    ("GET", "/v2/models/digits/stats", None),
    ("GET", "/v2/models/stats", None),
    ("GET", "/v2/models/other", None),
    ("GET", "/v2/models/other/config", None),
    ("GET", "/v2/models/other/ready", None),
    ("GET", "/v2/models/other/stats", None),
    ("GET", "/v2/models/digits/versions/7", None),
    ("GET", "/v2/models/digits/versions/2/ready", None),
    ("GET", "/v2/models/digits/versions/x", None),
    ("GET", "/v2/nothing", None),
    ("GET", "/nothing", None),
    ("GET", INFER, None),
    ("GET", "/v2/repository/index", None),
    ("POST", "/v2", None),
    ("DELETE", "/v2/models/digits", None),
    ("POST", "/v2/repository/index", None),
    ("POST", "/v2/repository/index", {}),
    ("POST", "/v2/repository/index", {"ready": True}),
    ("POST", "/v2/repository/index", {"ready": 1}),
    ("POST", "/v2/repository/models/other/load", None),
    ("POST", "/v2/repository/models/other/unload", None),
]
STATUS = {
    "GET /v2/models/other/ready": (404, 400, OTHER_MODEL),
    "GET /v2/models/other/stats": (404, 400, OTHER_MODEL),
    "GET /v2/models/digits/versions/2/ready": (404, 400, OTHER_MODEL),
    'POST /v2/repository/index {"ready": 1}': (400, 500, OWN_MISTAKE),
    "POST /v2/repository/models/other/load": (404, 500, OTHER_MODEL),
    "POST /v2/repository/models/other/unload": (404, 200, OTHER_MODEL),
}
"""Where the status differs: ours, Triton's, why."""

WRONG = {
    "a batch too large": {"count": 9},
    "no rows": {"count": 0},
    "another type": {"datatype": "FP64"},
    "another name": {"name": "other"},
    "another shape": {"shape": [1, 1, 8, 9]},
    "too few numbers": {"data": [1.0, 2.0]},
    "an output that isn't there": {"outputs": [{"name": "other"}]},
    "a number as its id": {"id": 7},
    "a text as a number": {"data": ["1"] * 64},
    "no shape": {"shape": None},
}
WRONG_STATUS = dict.fromkeys(
    ("a number as its id", "another shape", "too few numbers", "a text as a number", "no shape"),
    (400, 500, OWN_MISTAKE),
)

OPTIONAL = {
    "runtime", "format", "is_shape_tensor", "allow_ragged_batch", "optional", "label_filename",
    "is_non_linear_format_io", "batch_input", "batch_output", "optimization", "instance_group",
    "default_model_filename", "cc_model_filenames", "metric_tags", "parameters", "model_warmup",
    "response_stats", "memory_usage", "default_priority_level", "default_queue_policy",
    "preserve_ordering", "priority_levels", "priority_queue_policy",
}  # fmt: skip
"""Fields of Triton's that tell of what a bundle doesn't have: how its own backends are set up."""


def title(asked):
    method, path, document = asked
    return f"{method} {path}" + ("" if document is None else f" {json.dumps(document)}")


@pytest.fixture(scope="module")
def rows(bundles):
    return bundles["digits"].golden()[0]["input"]


def request(rows, count=1, **changes):
    """Return a request of JSON; a change to None leaves the field out."""
    some = np.concatenate([rows] * 2)[:count]
    whole = {key: changes.pop(key) for key in ("id", "outputs", "parameters") if key in changes}
    tensor = {
        "name": "input",
        "datatype": "FP32",
        "shape": list(some.shape),
        "data": some.ravel().tolist(),
        **changes,
    }
    return {"inputs": [{k: v for k, v in tensor.items() if v is not None}], **whole}


def missing(theirs, ours, where=""):
    """Return the fields that Triton's answer has and ours hasn't, or whose kinds differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        wanted = [key for key in theirs if key not in OPTIONAL]
        return [f"{where}/{key}" for key in wanted if key not in ours] + [
            found
            for key in wanted
            if key in ours
            for found in missing(theirs[key], ours[key], f"{where}/{key}")
        ]
    if isinstance(theirs, list) and isinstance(ours, list):
        return missing(theirs[0], ours[0], f"{where}[]") if theirs and ours else []
    numbers = isinstance(theirs, int | float) and isinstance(ours, int | float)
    return [] if numbers or type(theirs) is type(ours) else [f"{where}: {ours!r}, not {theirs!r}"]


@pytest.mark.parametrize("asked", ASKED, ids=title)
def test_both_say_the_same(pair, asked):
    (status, ours), (other, theirs) = pair.told(*asked)
    assert (status, other) == STATUS.get(title(asked), (other, other))[:2]
    if other == 200 and theirs is not None and status == 200:
        assert missing(theirs, ours) == []
    elif status >= 400:
        assert list(ours) == ["error"]


@pytest.mark.parametrize("wrong", WRONG)
def test_both_refuse_the_same(pair, rows, wrong):
    (status, ours), (other, theirs) = pair.told("POST", INFER, request(rows, **WRONG[wrong]))
    assert (status, other) == WRONG_STATUS.get(wrong, (400, 400))[:2]
    assert list(ours) == list(theirs) == ["error"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"count": 8},
        {"id": "mine"},
        {"outputs": []},
        {"outputs": [{"name": "logits"}]},
        {"parameters": {"a": 1, "b": "x", "c": True, "d": 1.5}},
        {"parameters": {"binary_data_output": False}},
        {"parameters": {"sequence_id": 1}},
    ],
    ids=json.dumps,
)
def test_both_answer_with_the_same_numbers(pair, rows, changes):
    (status, ours), (other, theirs) = pair.told("POST", INFER, request(rows, **changes))
    assert (status, other) == (200, 200)
    assert missing(theirs, ours) == []
    mine, his = ours["outputs"][0], theirs["outputs"][0]
    assert {**mine, "data": 0} == {**his, "data": 0}
    np.testing.assert_allclose(mine["data"], his["data"], rtol=1e-5, atol=1e-6)
    # without an id of the caller's Triton gives none; here feedback needs one
    assert ours["id"] == theirs.get("id", ours["id"])


def test_nested_data_is_read_alike(pair, rows):
    (_, ours), (_, theirs) = pair.told("POST", INFER, request(rows, 2, data=rows[:2].tolist()))
    np.testing.assert_allclose(ours["outputs"][0]["data"], theirs["outputs"][0]["data"], rtol=1e-5)


def test_classes_are_written_alike(pair, rows):
    wanted = [{"name": "logits", "parameters": {"classification": 3}}]
    (_, ours), (_, theirs) = pair.told("POST", INFER, request(rows, 2, outputs=wanted))
    assert ours["outputs"] == theirs["outputs"]


@pytest.mark.parametrize("binary", [True, False])
def test_every_type_comes_back_as_it_went(pair, binary):
    for side in (pair.ours, pair.triton):
        with triton.InferenceServerClient(f"127.0.0.1:{side.http}") as client:
            tensors = []
            for name, array in TYPES.items():
                tensor = triton.InferInput(name, [1, 2], name.upper())
                # JSON has no half-precision numbers, in either server
                tensor.set_data_from_numpy(array, binary_data=binary or name == "fp16")
                tensors.append(tensor)
            wanted = [
                triton.InferRequestedOutput(f"{name}_out", binary_data=binary or name == "fp16")
                for name in TYPES
            ]
            answer = client.infer("types", tensors, outputs=wanted)
            for name, array in TYPES.items():
                found = answer.as_numpy(f"{name}_out")
                assert found.dtype == array.dtype
                np.testing.assert_array_equal(found, array)


def test_the_statistics_count_alike(pair, rows):
    def counts(side):
        stats = side.told("GET", "/v2/models/digits/stats")[1]["model_stats"][0]
        spent = {key: stats["inference_stats"][key]["count"] for key in ("success", "queue")}
        return {"inferences": stats["inference_count"], **spent}

    for side in (pair.ours, pair.triton):
        before = counts(side)
        for count in (1, 3):
            assert side.told("POST", INFER, request(rows, count))[0] == 200
        after = counts(side)
        assert {key: after[key] - before[key] for key in after} == {
            "inferences": 4, "success": 2, "queue": 2,
        }  # fmt: skip


def test_a_model_is_unloaded_and_loaded_alike(pair):
    load, unload = (f"/v2/repository/models/types/{what}" for what in ("load", "unload"))
    for side, gone in ((pair.ours, 503), (pair.triton, 400)):
        assert side.told("POST", unload, {"parameters": {"unload_dependents": True}})[0] == 200
        assert side.told("GET", "/v2/models/types/ready")[0] == gone
        assert side.told("POST", load, {})[0] == 200
        assert side.told("GET", "/v2/models/types/ready")[0] == 200


def test_a_timeout_is_kept_here_and_there_only_where_a_policy_says_so(pair, rows):
    asked = request(rows, parameters={"timeout": 1})  # microseconds
    (status, _), (other, _) = pair.told("POST", INFER, asked)
    assert (status, other) == (504, 200)
