"""Every verb with `--json`: one object on stdout, with the keys that scripts rely on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.cli import main, verbs
from fettle.core.bundle import Bundle
from fettle.search import demo as demo_module
from fettle.search.compress import study
from fettle.train import FitPlan

RESULT = {"verdict", "budget", "baseline", "best", "frontier", "trials", "seconds", "machine"}
ROW = {"recipe", "runtime", "precision", "metric", "latency_ms", "size_bytes",
       "peak_memory_bytes", "macs", "bundle"}  # fmt: skip
BENCH_ROW = {"subject", "runtime", "precision", "batch", "threads", "latency_ms", "throughput",
             "size_bytes", "peak_memory_bytes", "refused"}  # fmt: skip
LATENCY = {"p50", "p90", "p95", "p99", "mean", "n", "batch", "threads"}
SPEEDUPS = {"vs_same_runtime_fp32", "vs_best_fp32", "vs_torch_eager"}
INTERVAL = {"value", "low", "high"}


def check_result(result):
    assert result.keys() >= RESULT
    assert result["verdict"] in ("pass", "fail", "inconclusive")
    assert result["budget"].keys() == {"metric", "max_drop", "confidence"}
    assert result["machine"].keys() >= {"cpu", "isa", "threads", "runtimes"}
    for row in (result["baseline"], result["best"]):
        assert row.keys() >= ROW
        assert row["metric"].keys() >= INTERVAL | {"n"}
        assert row["latency_ms"].keys() >= LATENCY
    assert result["best"]["drop"].keys() == INTERVAL | {"n", "test"}
    assert result["best"]["speedup"].keys() == SPEEDUPS
    for speedup in result["best"]["speedup"].values():
        assert speedup.keys() == INTERVAL
        assert speedup["low"] <= speedup["value"] <= speedup["high"]
    assert result["frontier"]
    assert result["trials"]


def test_compress(finished):
    text = (finished.parent / "stdout.json").read_text()
    assert len(text.splitlines()) == 1
    result = json.loads(text, parse_constant=pytest.fail)
    check_result(result)
    assert result == json.loads((finished / "result.json").read_text())
    assert result["best"]["recipe"].startswith("quantize.static @ ")
    assert result["best"]["latency_ms"]["batch"] == 8
    assert result["best"]["bundle"] == str(finished / "best")
    assert (finished / "report.html").read_text().startswith("<!")


def test_compress_without_a_recipe_leaves_the_model_alone(fettle, linear_onnx, tmp_path):
    said = fettle("compress", "--model", linear_onnx, "--data", "digits", "--seconds", "0.5",
                  "--max-drop", "0.05", "--out", tmp_path / "out", "--json")  # fmt: skip
    assert said.code == 0
    assert said.json["verdict"] == "pass"
    assert said.json["best"]["drop"]["value"] == 0
    assert "@" in said.json["best"]["recipe"]


def test_compress_for_people(fettle, linear_onnx, tmp_path):
    said = fettle("compress", "--model", linear_onnx, "--data", "digits", "--seconds", "0.5",
                  "--max-drop", "0.05", "-t", "@ onnxruntime", "--out", tmp_path)  # fmt: skip
    assert said.code == 0
    assert said.out.startswith("PASS")
    assert str(tmp_path / "report.html") in said.out
    assert Bundle.open(tmp_path / "best").manifest.runtime == "onnxruntime"


def test_a_verdict_that_is_no_pass_is_exit_code_1(fettle, finished, study_words, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    words = [*study_words, "--max-drop", "0", "--out", out]
    said = fettle(*words, "--json")
    assert said.code == 1
    assert said.json["verdict"] in ("fail", "inconclusive")
    assert said.json["verdict_text"].startswith(said.json["verdict"])
    assert json.loads((out / "result.json").read_text()) == said.json
    assert Bundle.open(out / "best").manifest.verdict["outcome"] == said.json["verdict"]
    people = fettle(*words)
    assert people.code == 1
    assert people.out.startswith(said.json["verdict"].upper())


@pytest.mark.slow
def test_demo(fettle, tmp_path, monkeypatch):
    def small(source, task, candidates, out, setting, context, teacher):
        plan = FitPlan(epochs=1)
        source = replace(source, spec="cifar:resnet8x0.5", plan=plan)
        teacher = replace(teacher, spec="cifar:resnet8x0.5", plan=plan)
        setting = replace(setting, seconds=0.5, target=("onnxruntime",))
        return study(source, task, candidates[:1], out, setting, context, teacher)

    monkeypatch.setattr(demo_module, "study", small)
    said = fettle("demo", "--out", tmp_path / "demo", "--json")
    check_result(said.json)
    assert said.code == (0 if said.json["verdict"] == "pass" else 1)
    assert said.json["data"] == "digits"
    people = fettle("demo", "--out", tmp_path / "demo")
    assert people.code == said.code
    assert f"fettle inspect {tmp_path / 'demo' / 'best'}" in people.out


def test_bench(fettle, linear_onnx, finished, tmp_path):
    other = shutil.copy(linear_onnx, tmp_path / "other.onnx")
    said = fettle("bench", linear_onnx, other, finished / "best", "--runtime", "onnxruntime",
                  "--batch", "1,4", "--seconds", "0.3", "--no-memory", "--no-roofline",
                  "--threads", "1", "--json")  # fmt: skip
    assert said.code == 0
    found = said.json
    assert found.keys() >= {"rows", "ratios", "noise", "machine"}
    assert found["noise"].keys() >= INTERVAL
    assert [(r["subject"], r["batch"]) for r in found["rows"]] == [
        (str(s), batch) for batch in (1, 4) for s in (linear_onnx, other, finished / "best")
    ]
    for row in found["rows"]:
        assert row.keys() >= BENCH_ROW
        assert row["refused"] is None
        assert row["latency_ms"].keys() >= LATENCY
    assert [row["precision"] for row in found["rows"][:3]] == ["f32", "f32", "int8"]
    assert len(found["ratios"]) == 6
    assert found["ratios"][0].keys() >= {"a", "b"} | INTERVAL
    assert found["ratios"][0]["a"] == f"{linear_onnx} @ onnxruntime"


def test_bench_measures_memory(fettle, linear_onnx):
    said = fettle("bench", linear_onnx, "--runtime", "onnxruntime", "--seconds", "0.3",
                  "--threads", "1", "--no-roofline", "--json")  # fmt: skip
    assert said.json["rows"][0]["peak_memory_bytes"] > 1e6


def test_bench_says_which_runtime_refuses_and_why(fettle, tmp_path):
    """A graph that loads, and fails when it is run with a batch other than one."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "picky",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
        [numpy_helper.from_array(np.array([2, 2]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "picky.onnx")
    said = fettle("bench", tmp_path / "picky.onnx", "--runtime", "onnxruntime+openvino",
                  "--batch", "1,3", "--seconds", "0.3", "--no-memory", "--no-roofline",
                  "--threads", "1", "--json")  # fmt: skip
    assert said.code == 0
    fine, bad = said.json["rows"][:2], said.json["rows"][2:]
    assert all(row["refused"] is None for row in fine)
    assert all("Reshape" in row["refused"] for row in bad)
    assert all(row["refused_kind"] == "model" for row in bad)
    assert all(row["latency_ms"] is None for row in bad)


@pytest.mark.parametrize("what", ["onnx", "bundle"])
def test_inspect(fettle, linear_onnx, finished, what):
    artifact = {"onnx": linear_onnx, "bundle": finished / "best"}[what]
    said = fettle("inspect", artifact, "--threads", "1", "--json")
    assert said.code == 0
    found = said.json
    assert found.keys() >= {"parameters", "macs", "sparsity", "size_bytes", "operators", "layers",
                            "lint"}  # fmt: skip
    for layer in found["layers"]:
        assert layer.keys() >= {"name", "op", "shape", "precision"}
    if what == "onnx":
        assert (found["parameters"], found["macs"]) == (640, 640)
        assert found["operators"] == {"Flatten": 1, "MatMul": 1}
    else:
        assert found["precisions"]["openvino"]["int8"] > 5


def test_inspect_a_torch_model_for_people(fettle):
    said = fettle("inspect", "cifar:resnet8", "--data", "digits", "--layers")
    assert said.code == 0
    macs = 64 * (9 * 16 + 2 * 9 * 16 * 16) + 16 * 9 * (16 + 32) * 32 + 4 * 9 * (32 + 64) * 64 + 640
    assert f"MACs        {macs:,} (one example)" in said.out
    heads = [line.split() for line in said.out.splitlines()]
    assert ["layer", "operator", "shape", "onnxruntime", "openvino", "pytorch"] in heads
    assert sum(line[1:2] == ["Conv"] and line[-3:] == ["f32"] * 3 for line in heads) == 7


def test_doctor(fettle):
    said = fettle("doctor", "--json")
    assert said.code == 0
    assert said.json.keys() >= {"machine", "versions", "runtimes", "missing", "advice"}
    assert said.json["runtimes"]["onnxruntime"] == {"works": True, "fault": None}
    assert "onnxruntime  works" in fettle("doctor").out


def test_train_then_compress_what_was_trained(fettle, tmp_path):
    words = ["train", "--model", "cifar:resnet8x0.5", "--data", "digits", "--out", tmp_path]
    said = fettle(*words, "--epochs", "1", "--json")
    assert said.code == 0
    found = said.json
    assert found.keys() >= {"model", "data", "metric", "parameters", "history", "folder", "seconds"}
    assert found["metric"].keys() == INTERVAL | {"name", "n", "split"}
    assert found["metric"]["split"] == "test"
    again = fettle(*words, "--epochs", "1", "--json").json
    assert again["metric"] == found["metric"]
    inspected = fettle("inspect", found["folder"], "--data", "digits", "--json").json
    assert inspected["parameters"] > 10_000


def test_export(fettle, tmp_path):
    out = tmp_path / "new" / "model.onnx"
    said = fettle("export", "--model", "cifar:resnet8x0.5", "--data", "digits", "--out", out,
                  "--json")  # fmt: skip
    assert said.code == 0
    assert said.json["onnx"] == str(out)
    assert said.json["size_bytes"] == out.stat().st_size
    assert said.json["parity"]["max_difference"] < 1e-2
    assert [p.name for p in out.parent.iterdir()] == ["model.onnx"]


def test_report(fettle, finished, tmp_path):
    shutil.copy(finished / "result.json", tmp_path)
    said = fettle("report", tmp_path, "--json")
    assert said.code == 0
    assert said.json == {"report": str(tmp_path / "report.html")}
    assert "quantize.static" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_a_mistyped_option_is_one_json_object_too(fettle, verb):
    said = fettle(verb, "--no-such-option", "--json")
    assert said.code == 2
    assert said.json.keys() == {"error", "exit_code"}
    assert said.json["exit_code"] == 2
    assert said.json["error"] in said.err


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert [verb for verb in verbs() if verb not in shown] == []
