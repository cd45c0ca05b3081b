"""A whole study on scikit-learn's digits, with a small network, a short training, one recipe."""

import json
import shutil
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from fettle import tasks
from fettle.core.bundle import Bundle
from fettle.core.context import Context
from fettle.core.errors import CheckFailed, DataError, InputError, ModelError
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.core.verdict import Budget
from fettle.measure import agreement, run_batch
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.search import Candidate, Setting, Source
from fettle.search._trial import is_quantized
from fettle.search.compress import compress, study
from fettle.search.journal import Journal
from fettle.testing.fakes import Recorder
from fettle.train import FitPlan

BUDGET = Budget(max_drop=0.2)
ENGINES = ("onnxruntime", "openvino")
# on one thread: several spin, and take turns of many ms where other programs run
SETTING = Setting(
    BUDGET,
    batch=16,
    threads=1,
    seconds=0.3,
    only_given=True,
    command="fettle compress …",
    data="digits",
)
SOURCE = Source("cifar:resnet8", plan=FitPlan(epochs=3, lr=0.1))
RECIPE = Recipe.parse("quantize.static")


class Counted:
    """Digits, and how often each split was read."""

    def __init__(self):
        self.task = tasks.load("digits")
        self.reads = Counter()
        plain = self.task.batches

        def batches(split, batch_size=256):
            self.reads[split] += 1
            return plain(split, batch_size)

        self.task.batches = batches


class Done:
    """A finished study."""

    def __init__(self, out):
        torch.set_num_threads(1)
        self.out, self.counted, self.watch = out, Counted(), Recorder()
        self.result = self.again(RECIPE)
        self.reads = Counter(self.counted.reads)

    def again(self, recipe, setting=SETTING, out=None):
        context = Context(progress=self.watch)
        return compress(SOURCE, self.counted.task, recipe, out or self.out, setting, context)

    def stages(self, out=None):
        events = Journal((out or self.out) / "journal.jsonl").read()
        return [event["name"] for event in events if event["event"] == "stage"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return Done(tmp_path_factory.mktemp("study") / "out")


@pytest.fixture
def copy(done, tmp_path):
    """The folder of the finished study again, for what would change it."""
    return shutil.copytree(done.out, tmp_path / "copy")


def test_the_result_is_strict_json_and_written_down(done):
    text = json.dumps(done.result, allow_nan=False)
    assert json.loads(text) == json.loads((done.out / "result.json").read_text())


def test_the_result_says_what_was_found(done):
    result, best, baseline = done.result, done.result["best"], done.result["baseline"]
    assert result["verdict"] == "pass", result["verdict_text"]
    assert result["budget"] == BUDGET.to_json()
    assert result["command"] == "fettle compress …"
    assert best["recipe"] in [f"quantize.static @ {name}(threads=1)" for name in ENGINES]
    assert (best["precision"], baseline["precision"]) == ("int8", "f32")
    assert best["metric"]["split"] == baseline["metric"]["split"] == "test"
    assert best["metric"]["n"] == done.counted.task.size("test") == best["drop"]["n"]
    assert best["drop"]["value"] == pytest.approx(
        baseline["metric"]["value"] - best["metric"]["value"], abs=1e-9
    )
    assert best["latency_ms"]["batch"] == 16
    assert best["peak_memory_bytes"] > 1e6
    assert best["macs"] == 747_136
    assert best["size_bytes"] == (done.out / "best" / "model.onnx").stat().st_size
    assert [stage["name"] for stage in best["stages"]] == [
        "train(cifar:resnet8)", "quantize.static", "export",
    ]  # fmt: skip


def test_every_denominator_is_a_trial(done):
    rows = {row["recipe"]: row for row in done.result["trials"]}
    assert rows.keys() >= {
        "@ openvino(threads=1, precision='bf16')",
        *(f"@ {name}(threads=1)" for name in ("pytorch", *ENGINES)),
        *(f"quantize.static @ {name}(threads=1)" for name in ENGINES),
    }  # fmt: skip
    for row in rows.values():
        if not row["refused"]:
            assert row["metric"]["split"] == "select"
            assert row["speedup"]["vs_torch_eager"]["value"] > 0
    own = rows["@ pytorch(threads=1)"]["speedup"]["vs_torch_eager"]
    assert own == {"value": 1, "low": 1, "high": 1}


def test_test_is_read_for_the_baseline_and_the_winner_alone(done):
    running = [row for row in done.result["trials"] if not row["refused"]]
    assert done.reads["test"] == 2
    assert done.reads["select"] >= len(running) > 4


def test_the_bundle_opens_and_its_golden_outputs_replay(done):
    bundle = Bundle.open(done.out / "best")
    manifest = bundle.manifest
    inputs, expected = bundle.golden()
    engine = Recipe.parse(f"@ {manifest.runtime}").runtime
    assert len(next(iter(inputs.values()))) == 16
    for name in {engine.name(), "onnxruntime"}:
        session = RUNTIMES.make(name).build(bundle.model_path, manifest.lowering.get(name, []))
        found = run_batch(session, inputs)
        scale = float(np.abs(expected["logits"]).mean())
        alike = agreement(found, expected)
        assert alike.top1 >= manifest.golden["agreement"]
        assert alike.mean_abs <= manifest.golden["mean_difference"] * scale
        session.close()


def test_the_manifest_says_where_the_bundle_comes_from(done):
    manifest = Bundle.open(done.out / "best").manifest
    task = done.counted.task
    assert manifest.recipe == done.result["best"]["recipe"]
    assert manifest.verdict["outcome"] == "pass"
    assert manifest.labels == task.labels
    assert manifest.inputs == task.signature.inputs
    assert manifest.outputs[0].shape == (-1, 10)
    assert manifest.data["fingerprints"]["test"] == task.fingerprint("test")
    assert manifest.lineage["model"] == "cifar:resnet8"
    assert manifest.machine["cpu"] == done.result["machine"]["cpu"]
    reference = Bundle.open(done.out / "best").reference()
    assert {name: len(array) for name, array in reference.items()} == {
        "input/input": task.size("calibrate"), "output/logits": task.size("calibrate"),
    }  # fmt: skip


def test_reports_are_beside_it(done):
    for page in (done.out / "report.html", done.out / "best" / "report.html"):
        assert "quantize.static" in page.read_text()
    assert "quantize.static" in (done.out / "best" / "card.md").read_text()
    assert list(done.out.rglob("*.tmp")) == []


def test_the_same_study_again_finds_everything_done(done, copy):
    before = done.counted.reads["test"]
    again = done.again(RECIPE, out=copy)
    assert done.stages(copy) == done.stages()
    assert done.counted.reads["test"] == before
    same = ("verdict", "verdict_text", "noise", "fingerprints")
    assert {k: again[k] for k in same} == {k: done.result[k] for k in same}
    assert again["best"]["latency_ms"] == done.result["best"]["latency_ms"]
    assert all(stage["cached"] for stage in again["best"]["stages"])


def test_a_recipe_that_ruins_the_model_fails_and_says_so(done, copy):
    """And a search, which may choose, prefers the model as it is."""
    ruin = Recipe.parse("distill.logits(student='cifar:resnet8x0.5', epochs=1, lr=1e-6)")
    setting = Setting(Budget(max_drop=0), ("onnxruntime",), 16, 1, 0.3, only_given=True)
    result = done.again(ruin, setting, copy)
    assert result["verdict"] == "fail"
    assert result["verdict_text"].startswith("fail: ")
    assert result["best"]["drop"]["low"] > 0
    assert "distill.logits" in result["best"]["recipe"]
    assert Bundle.open(copy / "best").manifest.verdict["outcome"] == "fail"
    assert done.stages(copy).count("train(cifar:resnet8)") == 1
    assert done.watch.lines.count("train cifar:resnet8") == 1

    setting = Setting(Budget(max_drop=0.05), ("onnxruntime",), 16, 1, 0.3)
    result = study(SOURCE, done.counted.task, [Candidate(ruin)], copy, setting)
    assert result["verdict"] == "pass"
    assert result["best"]["recipe"] == "@ onnxruntime(threads=1)"


def test_the_recipe_s_runtime_is_the_only_one_it_is_tried_on(done, copy):
    setting = Setting(BUDGET, ("onnxruntime",), 16, 1, 0.3, only_given=True)
    result = done.again(Recipe.parse("@ openvino"), setting, copy)
    assert result["best"]["recipe"] == "@ openvino(threads=1)"


@pytest.mark.parametrize("target", ["pytorch", "@ pytorch"])
def test_a_runtime_that_runs_no_onnx_is_refused_at_once(done, target, tmp_path):
    setting, recipe = Setting(target=("pytorch",)), Recipe()
    if target.startswith("@"):
        setting, recipe = Setting(), Recipe.parse(target)
    with pytest.raises(InputError, match="can't run what a study makes"):
        compress(SOURCE, done.counted.task, recipe, tmp_path, setting)
    assert not (tmp_path / "stages").exists()


def test_the_same_recipe_twice_is_refused_at_once(done, tmp_path):
    twice = [Candidate(RECIPE, "one"), Candidate(RECIPE, "two")]
    with pytest.raises(InputError, match="different recipes"):
        study(SOURCE, done.counted.task, twice, tmp_path, SETTING)
    assert not (tmp_path / "stages").exists()


def test_a_recipe_that_no_runtime_runs_is_no_pass(done, copy, monkeypatch):
    """The model as it is would pass, but it isn't what was asked for."""
    build = OnnxRuntime.build

    def picky(self, model, lowering=()):
        if b"QuantizeLinear" in model.read_bytes():
            raise ModelError("no integers here")
        return build(self, model, lowering)

    monkeypatch.setattr(OnnxRuntime, "build", picky)
    setting = Setting(BUDGET, ("onnxruntime",), 16, 1, 0.3, only_given=True)
    with pytest.raises(CheckFailed, match=r"quantize\.static.*no integers here"):
        done.again(RECIPE, setting, copy)


@pytest.fixture
def plain_onnx(done):
    """The graph of the model as it is, which the study exported first."""
    return next(p for p in done.out.glob("stages/*/onnx/model.onnx") if not is_quantized(p))


def test_a_model_that_no_runtime_runs_has_nothing_to_be_compared_with(
    done, plain_onnx, monkeypatch, tmp_path
):
    monkeypatch.setattr(OnnxRuntime, "supports", lambda self: "not today")
    source, setting = Source(str(plain_onnx)), Setting(target=("onnxruntime",))
    with pytest.raises(CheckFailed, match="not today"):
        compress(source, done.counted.task, Recipe(), tmp_path, setting)


def test_an_operator_that_no_engine_knows_is_a_wrong_input(done, plain_onnx, tmp_path):
    """The mistake is the file's, and the message names the operator."""
    proto = onnx.load(plain_onnx)
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Warp", "acme"
    proto.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(proto, tmp_path / "odd.onnx")
    source, setting = Source(str(tmp_path / "odd.onnx")), Setting(target=("onnxruntime",))
    with pytest.raises(ModelError, match="acme:Warp"):
        compress(source, done.counted.task, Recipe(), tmp_path / "out", setting)


def test_a_graph_that_is_quantized_already_has_nothing_to_be_compared_with(done, tmp_path):
    source = Source(str(done.out / "best" / "model.onnx"))
    with pytest.raises(InputError, match="quantized already"):
        compress(source, done.counted.task, Recipe(), tmp_path, SETTING)


def test_weights_beside_the_graph_come_into_the_bundle(done, plain_onnx, tmp_path):
    beside = tmp_path / "net" / "net.onnx"
    beside.parent.mkdir()
    onnx.save(
        onnx.load(plain_onnx), beside, save_as_external_data=True, location="weights.bin",
        size_threshold=512,
    )  # fmt: skip
    setting = Setting(Budget(max_drop=0.05), ("onnxruntime",), 16, 1, 0.3)
    result = compress(Source(str(beside)), done.counted.task, Recipe(), tmp_path / "out", setting)
    assert result["verdict"] == "pass"
    shutil.rmtree(beside.parent)
    bundle = Bundle.open(tmp_path / "out" / "best")
    inputs, expected = bundle.golden()
    found = run_batch(OnnxRuntime().build(bundle.model_path), inputs)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-5, atol=1e-6)


def test_a_graph_of_another_shape_than_the_data_is_refused(plain_onnx, tmp_path):
    source = Source(str(plain_onnx))
    with pytest.raises(DataError, match="takes other inputs"):
        compress(source, tasks.load("noise:3x16x16:10"), Recipe(), tmp_path, SETTING)
