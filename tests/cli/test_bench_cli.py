"""`fettle bench` as a user meets it: several artifacts, pages, refusals, wrong input."""

import math
import os
import re
import signal
import subprocess
import sys
import time

import onnx
import pytest
from onnx import TensorProto, helper

QUICK = ["--seconds", "0.3", "--no-memory", "--no-roofline", "--threads", "1"]
ORT = ["--runtime", "onnxruntime"]


def save(path, nodes, domain=""):
    """Write a graph from images of 1×8×8 to `y` of the same shape."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1, 8, 8]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def relu(tmp_path):
    return save(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["y"])])


@pytest.fixture
def foreign(tmp_path):
    """A graph with an operator that no engine knows."""
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="frob_1", domain="nobody")
    return save(tmp_path / "foreign.onnx", [node], "nobody")


def test_one_artifact_twice_is_told_apart(fettle, linear_onnx):
    said = fettle("bench", linear_onnx, linear_onnx, *ORT, *QUICK, "--json")
    assert said.code == 0
    assert [r["subject"] for r in said.json["rows"]] == [str(linear_onnx), f"{linear_onnx} (2)"]
    assert said.json["ratios"][0].keys() >= {"a", "b", "value", "low", "high", "differs"}


def test_several_models_of_different_inputs_with_real_ones(fettle, linear_onnx, relu):
    said = fettle("bench", linear_onnx, relu, *ORT, *QUICK, "--data", "digits", "--data", "",
                  "--batch", "1,3,3", "--json")  # fmt: skip
    assert said.code == 0
    found = [(r["subject"], r["batch"], r["refused"]) for r in said.json["rows"]]
    assert found == [(str(s), batch, None) for batch in (1, 3) for s in (linear_onnx, relu)]
    assert all(
        row["latency_ms"]["intervals"].keys() >= {"p50", "mean"} for row in said.json["rows"]
    )


def test_several_clients_at_once(fettle, linear_onnx):
    said = fettle("bench", linear_onnx, *ORT, *QUICK, "--concurrency", "1,2", "--json")
    assert [row["concurrency"] for row in said.json["rows"]] == [1, 2]
    assert all(row["throughput"] > 0 for row in said.json["rows"])
    assert [noise["concurrency"] for noise in said.json["noises"]] == [1, 2]


@pytest.mark.parametrize(
    ("scenario", "key"), [("single", "percentile"), ("offline", "tried"), ("server", "trials")]
)
def test_scenarios(fettle, linear_onnx, scenario, key):
    said = fettle("bench", linear_onnx, *ORT, *QUICK, "--scenario", scenario, "--json")
    assert said.code == 0
    (row,) = said.json["rows"]
    assert row["scenario"]["name"] == scenario
    assert key in row["scenario"]
    assert row["latency_ms"]["mean"] > 0
    assert said.json["noise"] is None


def test_the_highest_rate_within_a_bound(fettle, linear_onnx):
    words = ["bench", linear_onnx, *ORT, *QUICK, "--scenario", "server", "--p99-ms", "200"]
    (row,) = fettle(*words, "--batch", "2", "--json").json["rows"]
    found = row["scenario"]
    assert row["throughput"] == 2 * found["rate"] > 0
    assert row["latency_ms"]["p99"] <= found["bound_ms"] == 200
    last = found["trials"][-1]
    assert (last["rate"], last["answer"]) == (found["rate"], "holds")
    text = " ".join(fettle(*words).out.split())
    assert "highest rate of requests a second whose p99" in text
    assert re.search(r"/s held [1-9]\d* of [1-9]\d* times over [\d,]+ requests", text)
    assert "of 200 ms" in text


def test_a_bound_that_no_rate_keeps(fettle, linear_onnx):
    words = [*ORT, *QUICK, "--scenario", "server", "--p99-ms", "0.000001"]
    said = fettle("bench", linear_onnx, *words)
    assert said.code == 2
    assert "no rate was shown to keep p99 within 1e-06 ms" in " ".join(said.out.split())


def test_the_most_examples_a_second(fettle, linear_onnx):
    words = ["bench", linear_onnx, *ORT, *QUICK, "--scenario", "offline", "--batch", "4"]
    found = fettle(*words, "--json").json["rows"][0]["scenario"]
    tried = {(load["batch"], load["clients"]) for load in found["tried"]}
    assert tried == {(1, 1), (4, 1), (8, 1)}
    assert (found["batch"], found["clients"]) in tried
    assert "all work is there at once" in fettle(*words).out


@pytest.mark.parametrize(("batch", "calls"), [(1, "1 of 2"), (2, ""), (5, "3 of 2")])
def test_a_fixed_batch_is_called_as_often_as_needed(fettle, relu, tmp_path, batch, calls):
    model = onnx.load(relu)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    words = ["bench", path, *ORT, *QUICK, "--batch", batch]
    (row,) = fettle(*words, "--json").json["rows"]
    assert (row["fixed_batch"], row["calls"]) == (2, math.ceil(batch / 2))
    out = fettle(*words).out
    assert ("the last call filled up" in " ".join(out.split())) is bool(calls)
    assert calls in out


def test_an_operator_that_an_engine_lacks_is_named_and_the_others_go_on(
    fettle, foreign, linear_onnx, monkeypatch
):
    monkeypatch.setattr("fettle.models.check_onnx", lambda path: None)
    said = fettle("bench", foreign, linear_onnx, "--runtime", "onnxruntime+openvino", *QUICK)
    assert said.code == 0
    assert said.out.count("Frobnicate") >= 2
    assert "linear.onnx" in said.out


def test_everything_refused(fettle, foreign, monkeypatch):
    monkeypatch.setattr("fettle.models.check_onnx", lambda path: None)
    said = fettle("bench", foreign, "--runtime", "onnxruntime+openvino", *QUICK, "--json")
    assert said.code == 2
    assert all("Frobnicate" in row["refused"] for row in said.json["rows"])


def test_only_missing_engines(fettle, linear_onnx):
    said = fettle("bench", linear_onnx, "--runtime", "tensorrt", *QUICK, "--json")
    assert said.code == 3
    assert said.json["rows"][0]["refused_kind"] == "missing"
    assert "to mend it" in said.json["rows"][0]["refused"]


def test_the_page(fettle, linear_onnx, tmp_path):
    page = tmp_path / "page.html"
    said = fettle("bench", linear_onnx, *ORT, *QUICK, "--html", page)
    assert said.code == 0
    assert said.out.rstrip().endswith(f"drawn in {page}")
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert str(linear_onnx) in text


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--batch", "0"], ["`--batch`", "`0`"]),
        (["--threads", "-1"], ["`--threads`", "`-1`"]),
        (["--threads", "9999"], ["threads", "1024", "9999"]),
        (["--concurrency", "0"], ["`--concurrency`", "`0`"]),
        (["--concurrency", "many"], ["`--concurrency`", "`many`"]),
        (["--scenario", "mlperf"], ["--scenario", "offline"]),
        (["--p99-ms", "0"], ["--p99-ms", "above 0"]),
        (["--data", "tokens:128"], ["tokens:128", "doesn't fit"]),
        (["--data", "digits", "--data", "digits"], ["`--data`", "1 artifacts", "got 2"]),
        (["--weights", "w.safetensors"], ["`--weights`", "0 torch models", "got 1"]),
        (["--html", "/no/such/folder/page.html"], ["`--html`", "/no/such/folder"]),
        (["--html", "/"], ["`--html`", "is a folder"]),
    ],
)
def test_wrong_options(refused, linear_onnx, options, needles):
    refused(["bench", linear_onnx, *ORT, *options], *needles)


def test_a_folder_that_is_no_bundle(refused, tmp_path):
    refused(["bench", tmp_path], "is no bundle")


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(linear_onnx, tmp_path):
    page = tmp_path / "page.html"
    words = ["bench", linear_onnx, *ORT, "--seconds", "600", "--no-memory", "--html", page]
    child = subprocess.Popen(
        [sys.executable, "-m", "fettle", *map(str, words)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert child.stderr.readline().startswith("time 1 at batch 1")
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    left = [p.name for p in tmp_path.iterdir()]
    assert not [name for name in left if "page" in name or "fettle" in name]
