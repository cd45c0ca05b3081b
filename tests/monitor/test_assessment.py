"""A log held against its bundle: what moved, and the cause that is named."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.arrays import TensorSpec
from fettle.core.bundle import Manifest, write_bundle
from fettle.core.errors import DataError
from fettle.core.hashing import fingerprint
from fettle.monitor.assessment import Asked, assess, disagreement_moved
from fettle.monitor.log import open_log
from fettle.monitor.table import open_source

SECOND = 10**9
LABELS = ("a", "b", "c")
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(0, 1, (5, 3)).astype(np.float32)


def model(path: Path) -> None:
    """Write Q/DQ → MatMul: scores of 3 classes from 5 numbers."""
    held = [numpy_helper.from_array(np.asarray(v), k)
            for k, v in {"s": np.float32(0.03), "z": np.int8(0), "w": WEIGHT}.items()]  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "input"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def rows(n, shift=0.0):
    return RANDOM.normal(shift, 1, (n, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle")
    (source := root / "files").mkdir()
    model(source / "model.onnx")
    x = rows(200)
    np.savez(source / "reference.npz", allow_pickle=False, **{"input/x": x, "output/y": x @ WEIGHT})
    specs = (TensorSpec("x", "float32", (-1, 5)),), (TensorSpec("y", "float32", (-1, 3)),)
    manifest = Manifest(
        *specs, "@ onnxruntime", labels=LABELS, measurements={"metric": {"value": 0.9}},
        verdict={"budget": {"metric": "top1", "max_drop": 0.01}},
    )  # fmt: skip
    return write_bundle(root / "best", manifest, source)


@pytest.fixture
def log(make, written, bundle):
    """Write 400 requests in four windows; what the last two get may differ."""

    def write(shift=0.0, flips=0.0, wrong=None, shadow=True, n=400):
        sha = fingerprint(bundle.manifest.to_json())
        random = np.random.default_rng(1)
        kept, labels = [], []
        for at in range(n):
            late = at >= n // 2
            x = random.normal(shift if late else 0, 1, (1, 5)).astype(np.float32)
            scores = x @ WEIGHT
            chances = np.exp(scores[0]) / np.exp(scores[0]).sum()
            top = int(scores.argmax())
            changes = {
                "time": 4_102_444_800 * SECOND + at * SECOND, "sha": sha, "top": top,
                "confidence": float(chances.max()), "inputs": {"x": x}, "outputs": {"y": scores},
            }  # fmt: skip
            kept.append(make(at, **changes))
            if shadow:
                flipped = random.random() < (flips if late else 0.01)
                changes |= {"sha": "original", "route": "shadow", "top": (top + flipped) % 3}
                kept.append(make(at, **{**changes, "inputs": None, "outputs": None}))
            if wrong is not None:
                missed = random.random() < (wrong if late else 0.1)
                labels.append((f"r{at}", LABELS[(top + missed) % 3]))
        return written(kept, labels)

    return write


def found(path, bundle, **asked):
    with open_log(path) as opened:
        return json.loads(json.dumps(assess(opened, Asked(bundle, seconds=100, **asked))))


def test_nothing_moved(log, bundle):
    told = found(log(flips=0.01), bundle)
    assert not told["drift"]["drifted"]
    assert told["triage"]["action"] == "nothing"
    assert told["triage"]["cause"] == "none"
    assert told["ranges"] is None
    names = {each["name"] for each in told["drift"]["features"]}
    assert {"class", "confidence", "input/x[0]", "input/x (all)", "output/y (all)"} <= names
    assert not told["drift"]["skipped"]


def test_a_damaged_bundle_is_rolled_back(log, bundle):
    told = found(log(flips=0.4), bundle)
    assert told["triage"]["evidence"]["disagreement"] is True
    assert told["triage"]["cause"] == "quantization drift"
    assert told["triage"]["action"] == "roll back"


def test_inputs_that_both_models_get_wrong_mean_training(log, bundle):
    told = found(log(shift=1.5, flips=0.01, wrong=0.8), bundle)
    assert told["drift"]["drifted"]
    assert told["drift"]["windows"][-1]["moved"]
    assert told["accuracy"]["by_labels"]["high"] < 0.89
    assert told["triage"]["action"] == "retrain"


def test_inputs_past_the_calibrated_ranges_mean_calibration(log, bundle):
    told = found(log(shift=4.0, shadow=False), bundle, ranges=50)
    (layer,) = told["ranges"]["layers"]
    assert told["ranges"]["n"] == 50
    assert layer["alarm"]
    assert told["triage"]["action"] == "recalibrate"


def test_without_labels_confidence_foretells(log, bundle):
    accuracy = found(log(), bundle)["accuracy"]
    assert accuracy["by_labels"] is None
    assert accuracy["by_confidence"]["estimate"] == pytest.approx(0.9, abs=0.05)
    assert accuracy["calibrated_on"].startswith("the accuracy")
    assert len(accuracy["assumptions"]) == 3


def test_few_pairs_tell_nothing(log):
    with open_log(log(n=60)) as opened:
        assert disagreement_moved(opened, 0.05) is None
    with open_log(log(flips=0.4)) as opened:
        assert disagreement_moved(opened, 0.05) is True
        assert disagreement_moved(opened, 0.05, "another") is True


def test_a_log_without_a_bundle(log):
    told = found(log(shadow=False), None)
    assert told["ranges"] is None
    assert told["drift"] is None
    assert told["triage"] is None
    assert told["accuracy"] is None
    told = found(log(shadow=False, wrong=0.1), None)
    assert told["accuracy"]["proven"] is None
    assert told["accuracy"]["by_labels"] is None  # nothing tells the names' numbers


def test_another_log_is_the_reference(log, tmp_path):
    path = log(shift=2.0, shadow=False)
    clean = tmp_path / "clean.csv"
    lines = [f"{at},{at % 3},{0.5 + at % 50 / 100}" for at in range(300)]
    clean.write_text("\n".join(["time,prediction,confidence", *lines]))
    told = found(path, None, reference=clean)
    assert {each["name"] for each in told["drift"]["features"]} == {"class", "confidence"}
    (empty := tmp_path / "empty.csv").write_text("time,latency_ms\n1,2\n")
    with pytest.raises(DataError, match="nothing that drift"):
        found(path, None, reference=empty)


def test_a_table_with_names_of_classes_in_an_order_of_its_own(tmp_path, bundle):
    path = tmp_path / "t.csv"
    lines = [f"{at},{'cab'[at % 3]},{'cab'[at % 3]}" for at in range(90)]
    path.write_text("\n".join(["time,prediction,label", *lines]))
    with open_source(path) as table:
        told = assess(table, Asked(bundle, count=90))
    assert told["accuracy"]["by_labels"]["estimate"] == 1
    assert told["drift"]["features"][0]["name"] == "class"


def test_an_empty_log_and_one_row(written, make, bundle):
    with open_log(written([])) as opened:
        told = assess(opened, Asked(bundle))
    assert told["drift"] is told["accuracy"] is told["triage"] is None


def test_one_row(written, make, bundle):
    with open_log(written([make(0, top=1)])) as opened:
        told = assess(opened, Asked(bundle))
    assert not told["drift"]["drifted"]
    assert told["accuracy"]["n"] == 1
