"""A whole study whose measuring is done by a crew tells what one in this process tells."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from fettle import tasks
from fettle.core.bundle import Bundle
from fettle.core.context import Context
from fettle.core.errors import CheckFailed, InputError
from fettle.core.progress import Silent
from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget
from fettle.search import Setting, Source
from fettle.search._store import Store
from fettle.search._trial import Trial
from fettle.search.compress import compress
from fettle.search.executors import Executor, workshop_of
from fettle.search.journal import Journal

MEASURED = {"supports", "open", "run", "time", "score", "probe"}


@dataclass(frozen=True, kw_only=True)
class Given(Executor):
    """Opens the crew that it was given."""

    plugin_name = "given"
    given: Any = None

    def __post_init__(self):
        """Check no knobs: a crew is none."""

    def crew(self, say):
        return self.given


def digits_onnx(path):
    """A linear model of digits: the mean image of each class, without training."""
    task = tasks.load("digits")
    batches = list(task.batches("train"))
    inputs = np.concatenate([next(iter(b.inputs.values())) for b in batches])
    labels = np.concatenate([b.targets for b in batches])
    means = np.stack([inputs[labels == c].reshape(-1, 64).mean(0) for c in range(10)])
    weight = numpy_helper.from_array(means.T.astype(np.float32), "w")
    bias = numpy_helper.from_array((-0.5 * (means**2).sum(1)).astype(np.float32), "b")
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]),
             helper.make_node("Gemm", ["flat", "w", "b"], ["y"])]  # fmt: skip
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "g", [given], [out], [weight, bias])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return str(path)


def setting(crew=None):
    return Setting(
        Budget(max_drop=0.5), target=("onnxruntime",), batch=4, threads=1, seconds=0.2,
        only_given=True, data="digits", executor=Given(given=crew) if crew else None,
    )  # fmt: skip


def test_a_study_by_a_crew_is_the_study_in_one_process(crew, told, tmp_path):
    source, recipe = Source(digits_onnx(tmp_path / "net.onnx")), Recipe.parse("graph.float16")
    found = {}
    for out, given in (("alone", None), ("crew", crew)):
        task, folder = tasks.load("digits"), tmp_path / out
        found[out] = compress(source, task, recipe, folder, setting(given), Context())
    assert crew.closed
    assert {job.order["do"] for job in crew.started} == {*MEASURED, "make"}
    assert all(job.measures is (job.order["do"] in MEASURED) for job in crew.started)
    assert told(tmp_path / "crew") == told(tmp_path / "alone")
    for name in ("verdict", "machine", "fingerprints", "budget"):
        assert found["crew"][name] == found["alone"][name]
    own, sent = (
        [(r["recipe"], r["metric"], r["drop"], r["stages"][0]["name"] if r["stages"] else "")
         for r in found[out]["trials"]] for out in ("alone", "crew")
    )  # fmt: skip
    assert sent == own
    bundles = [Bundle.open(tmp_path / out / "best") for out in ("alone", "crew")]
    assert bundles[0].manifest.inputs == bundles[1].manifest.inputs
    stages = [event for event in told(tmp_path / "crew") if event["event"] == "stage"]
    compress(source, tasks.load("digits"), recipe, tmp_path / "crew", setting(), Context())
    again = [event for event in told(tmp_path / "crew") if event["event"] == "stage"]
    assert again == stages != []  # this process finds what the crew made and measured
    golden = [np.load(b.path / "golden.npz", allow_pickle=False) for b in bundles]
    for name in golden[0].files:
        np.testing.assert_array_equal(golden[0][name], golden[1][name])


def test_without_labels_the_nodes_judge_by_the_same_original(crew, told, tmp_path):
    np.savez(tmp_path / "x.npz", x=load_digits().images[:400].astype(np.uint8) * 15)
    source, recipe = Source(digits_onnx(tmp_path / "net.onnx")), Recipe.parse("graph.float16")
    data, found = f"npz:{tmp_path / 'x.npz'}", []
    for out, given in (("alone", None), ("crew", crew)):
        settings = replace(setting(given), data=data)
        found.append(compress(source, tasks.load(data), recipe, tmp_path / out, settings))
    assert told(tmp_path / "crew") == told(tmp_path / "alone")
    assert found[0]["budget"]["metric"] == found[1]["budget"]["metric"] != "top1"
    assert [r["metric"] for r in found[0]["trials"]] == [r["metric"] for r in found[1]["trials"]]


@pytest.fixture
def measuring(crew, tmp_path):
    """A measuring by the crew, and the trial of an untouched model."""
    source = Source(digits_onnx(tmp_path / "net.onnx"))
    store = Store(tmp_path / "out", Journal(tmp_path / "out" / "journal.jsonl"))
    shop = workshop_of(crew, setting(crew), source, tasks.load("digits"), store, Context())
    recipe = Recipe.parse("@ onnxruntime(threads=1)")
    made = shop.make(recipe)
    trial = Trial("FP32", recipe, recipe.runtime, made.key, made.path, "f32")
    return shop.measuring(4, 0.2, Silent()), trial


def test_a_session_on_the_target_answers_as_one_here(measuring):
    there, trial = measuring
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)}
    own, sent = trial.runtime.build(trial.model), there.build(trial)
    assert (sent.inputs, sent.outputs, sent.callers) == (own.inputs, own.outputs, own.callers)
    np.testing.assert_array_equal(sent.run(inputs)["y"], own.run(inputs)["y"])
    assert sent.layers() == own.layers()
    assert [t.name for t in sent.layer_times(inputs, 2)] == [
        t.name for t in own.layer_times(inputs, 2)
    ]


def test_what_the_engine_says_against_an_input_comes_back(measuring):
    there, trial = measuring
    with pytest.raises(InputError, match="input `x` expects"):
        there.build(trial).run({"x": np.zeros((1, 1, 8, 8))})


def test_the_engine_is_asked_once_whether_it_is_there(crew, measuring):
    there, trial = measuring
    assert [there.supports(trial) for _ in range(3)] == [None] * 3
    assert crew.names == ["supports"]


def test_another_machine_than_the_target_is_refused(measuring):
    there, trial = measuring
    there._target = {**there._target, "machine": {**there._target["machine"], "cpu": "Z80"}}
    with pytest.raises(InputError, match="differs from the target in cpu: mark only"):
        there.supports(trial)


def test_another_artifact_than_the_trial_is_refused(measuring):
    there, trial = measuring
    trial.key = "0" * 16
    with pytest.raises(CheckFailed, match="and the study 0000"):
        there.build(trial)
