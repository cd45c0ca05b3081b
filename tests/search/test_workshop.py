"""Stages are made once: what could change a result changes its key, and nothing else does."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fettle import export, models, train
from fettle.compress import Ensemble
from fettle.core.errors import ModelError
from fettle.core.recipe import Recipe
from fettle.graph import GraphPass
from fettle.search import Source
from fettle.testing.fakes import TinyTask
from fettle.train import FitPlan


@dataclass(frozen=True, kw_only=True)
class Untouched(GraphPass):
    """A pass that rewrites nothing."""

    plugin_name = "graph.untouched"

    def apply(self, model, task):
        return model


def total(made):
    return json.loads(made.path.read_text())


def test_a_second_make_does_no_work(workshop, scale, work):
    recipe = Recipe((scale(by=2.0), scale(by=3.0)))
    first = workshop().make(recipe)
    assert work == ["Scale(by=2.0)", "Scale(by=3.0)", "export"]
    second = workshop().make(recipe)
    assert len(work) == 3
    assert (second.path, second.key) == (first.path, first.key)
    assert [stage.name for stage in second.stages] == work
    assert not any(stage.cached for stage in first.stages)
    assert all(stage.cached for stage in second.stages)
    assert [s.seconds for s in second.stages] == pytest.approx(
        [s.seconds for s in first.stages], abs=1e-3
    )


def test_steps_are_applied_in_order_to_what_the_last_one_made(workshop, scale, work):
    plain = total(workshop().make(Recipe()))
    made = total(workshop().make(Recipe((scale(by=2.0), scale(by=3.0)))))
    assert made == pytest.approx(6 * plain, rel=1e-5)


def test_the_longest_common_beginning_is_reused(workshop, scale, work):
    a, b, c = scale(by=2.0), scale(by=3.0), scale(by=5.0)
    workshop().make(Recipe((a, b)))
    work.clear()
    made = workshop().make(Recipe((a, c)))
    assert work == [str(c), "export"]
    assert [(s.name, s.cached) for s in made.stages] == [
        (str(a), True), (str(c), False), ("export", False),
    ]  # fmt: skip
    plain = total(workshop().make(Recipe()))
    assert total(made) == pytest.approx(10 * plain, rel=1e-5)
    work.clear()
    workshop().make(Recipe((a, b, c)))
    assert work == [str(c), "export"]


def test_a_changed_knob_redoes_from_there_on(workshop, scale, work):
    workshop().make(Recipe((scale(by=2.0), scale(by=3.0), scale(by=4.0))))
    work.clear()
    workshop().make(Recipe((scale(by=2.0), scale(by=3.5), scale(by=4.0))))
    assert work == ["Scale(by=3.5)", "Scale(by=4.0)", "export"]


def test_a_last_step_is_kept_by_its_export(workshop, scale, convert, work, store):
    recipe = Recipe((scale(by=2.0), convert()))
    workshop().make(recipe)
    workshop().make(recipe)
    assert work == ["Scale(by=2.0)", "Convert", "export"]
    assert list((store.root / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("change", ["seed", "data", "weights", "code", "plan"])
def test_whatever_could_change_the_result_changes_the_key(
    workshop, linear, scale, work, change, tmp_path, save_safely
):
    recipe = Recipe((scale(by=2.0),))
    weights = save_safely(tmp_path / "w.safetensors", 1.0)
    first = workshop(weights=weights).make(recipe)
    work.clear()
    changed = {
        "seed": lambda: workshop(weights=weights, seed=1),
        "data": lambda: workshop(weights=weights, task=TinyTask(seed=1)),
        "weights": lambda: workshop(weights=save_safely(tmp_path / "w.safetensors", 2.0)),
        "code": lambda: workshop(rewritten(linear), weights=weights),
        "plan": lambda: workshop(weights=weights, plan=FitPlan(epochs=1)),
    }
    second = changed[change]().make(recipe)
    trained = ["train 1"] if change == "plan" else []
    assert work == [*trained, "Scale(by=2.0)", "export"]
    assert second.key != first.key
    assert first.path.exists()


def rewritten(spec):
    path = Path(spec.rpartition(":")[0])
    path.write_text(path.read_text() + "\n# changed\n")
    return spec


def test_a_changed_teacher_changes_what_learns_from_it_alone(workshop, linear, scale, learn, work):
    plan = FitPlan(epochs=2)
    recipe = Recipe((scale(by=2.0), learn(), scale(by=3.0)))
    workshop(plan=plan).make(recipe)
    steps = ["Scale(by=3.0)", "export"]
    assert work == ["train 2", "Scale(by=2.0)", "Learn from itself", *steps]
    work.clear()
    teacher = Source(linear, plan=FitPlan(epochs=3))
    workshop(plan=plan, teacher=teacher).make(recipe)
    assert work == ["train 3", "Learn from a teacher", *steps]
    work.clear()
    workshop(plan=plan, teacher=teacher).make(Recipe((learn(),)))
    assert work == ["Learn from a teacher", "export"]
    work.clear()
    workshop(plan=plan, teacher=teacher).make(recipe)
    assert work == []


def test_several_teachers_are_all_in_the_key_and_teach_as_one(workshop, linear, learn, work):
    plan, recipe = FitPlan(epochs=2), Recipe((learn(),))
    first, second = (Source(linear, plan=FitPlan(epochs=n)) for n in (3, 4))

    def key(*teachers):
        return workshop(plan=plan, teacher=teachers).key(recipe.techniques)

    assert key() == workshop(plan=plan).key(recipe.techniques)
    assert key(first) == workshop(plan=plan, teacher=first).key(recipe.techniques)
    assert len({key(), key(first), key(second), key(first, second), key(second, first)}) == 5
    made = workshop(plan=plan, teacher=[first, second]).make(recipe)
    assert work == ["train 2", "train 3", "train 4", "Learn from a teacher", "export"]
    assert [stage.name for stage in made.stages].count(f"train({linear})") == 3
    work.clear()
    shop = workshop(plan=plan, teacher=[first, second])
    ensemble = shop._taught_by(learn(), [])
    assert isinstance(ensemble, Ensemble)
    x = torch.randn(3, 1, 8, 8)
    each = [shop._load(source)[0](x).softmax(1) for source in (first, second)]
    torch.testing.assert_close(ensemble(x).exp(), sum(each) / 2)


def test_another_step_does_not_train_the_source_again(workshop, scale, work):
    plan = FitPlan(epochs=2)
    workshop(plan=plan).make(Recipe((scale(by=2.0),)))
    made = workshop(plan=plan).make(Recipe((scale(by=3.0),)))
    assert work.count("train 2") == 1
    assert made.stages[0].name.startswith("train(")
    assert made.stages[0].cached


def test_a_model_trained_anew_in_the_same_folder_is_another(workshop, linear, tmp_path, work):
    task = TinyTask()
    folder = tmp_path / "model"
    keys = []
    for seed in (0, 1):
        models.save(models.load(linear, signature=task.signature, seed=seed), folder)
        keys.append(workshop(str(folder)).key())
    assert keys[0] != keys[1]


@pytest.mark.parametrize("at", ["step", "export", "train"])
def test_a_stage_that_is_broken_off_leaves_nothing(workshop, scale, work, store, monkeypatch, at):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    recipe = Recipe((scale(by=2.0), scale(by=-1.0 if at == "step" else 3.0)))
    plan = FitPlan(epochs=1) if at == "train" else None
    with monkeypatch.context() as broken:
        if at != "step":
            module, name = (export, "export_onnx") if at == "export" else (train, "fit")
            broken.setattr(module, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            workshop(plan=plan).make(recipe)
    finished = [stage for stage in work if stage.startswith("Scale(by=2")]
    stages = list((store.root / "stages").iterdir())
    assert [path for path in stages if not (path / "stage.json").exists()] == []
    assert len(stages) == {"step": 1, "export": 2, "train": 0}[at]
    assert len(finished) == (0 if at == "train" else 1)
    work.clear()
    whole = Recipe((scale(by=2.0), scale(by=3.0)))
    workshop(plan=plan).make(whole)
    assert "Scale(by=2.0)" not in work or at == "train"
    assert work[-1] == "export"


def test_a_stage_whose_record_is_torn_is_made_again(workshop, scale, work, store):
    recipe = Recipe((scale(by=2.0),))
    made = workshop().make(recipe)
    (store.folder(made.key) / "stage.json").write_text('{"name": "exp')
    again = workshop().make(recipe)
    assert work == ["Scale(by=2.0)", "export", "export"]
    assert again.path == made.path


def test_a_step_after_the_last_is_refused_before_anything_is_done(workshop, scale, convert, work):
    with pytest.raises(ModelError, match="can't follow `Convert`"):
        workshop().make(Recipe((scale(by=2.0), convert(), scale(by=2.0))))
    assert work == []


class TestOnnx:
    @pytest.fixture
    def graph(self, tmp_path):
        def save(value=1.0, external=False):
            weight = np.full((64, 4), value, np.float32)
            graph = helper.make_graph(
                [helper.make_node("Flatten", ["input"], ["f"]),
                 helper.make_node("MatMul", ["f", "w"], ["y"])],
                "g",
                [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 8, 8])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
                [numpy_helper.from_array(weight, "w")],
            )  # fmt: skip
            opset = [helper.make_opsetid("", 17)]
            model = helper.make_model(graph, opset_imports=opset, ir_version=8)
            path = tmp_path / "net.onnx"
            (tmp_path / "w.bin").unlink(missing_ok=True)
            onnx.save(
                model, str(path), save_as_external_data=external, location="w.bin",
                size_threshold=0,
            )  # fmt: skip
            return str(path)

        return save

    def test_a_file_is_taken_as_it_is(self, workshop, graph, work):
        made = workshop(graph()).make(Recipe())
        assert str(made.path) == graph()
        assert made.stages == ()
        assert work == []

    @pytest.mark.parametrize("external", [False, True])
    def test_its_key_is_its_content_wherever_that_lies(self, workshop, graph, external):
        keys = [workshop(graph(value, external)).key() for value in (1.0, 2.0, 1.0)]
        assert keys[0] == keys[2] != keys[1]

    def test_techniques_and_weights_are_refused(self, workshop, graph, scale):
        with pytest.raises(ModelError, match="works on a torch module"):
            workshop(graph()).make(Recipe((scale(),)))
        with pytest.raises(ModelError, match="brings its own weights"):
            workshop(graph(), weights="w.safetensors").make(Recipe())

    def test_a_missing_or_damaged_file_is_refused(self, workshop, graph, tmp_path):
        with pytest.raises(ModelError, match="there is none"):
            workshop(str(tmp_path / "no.onnx")).make(Recipe())
        path = tmp_path / "bad.onnx"
        path.write_bytes(b"\xff" * 30)
        with pytest.raises(ModelError, match="no valid ONNX"):
            workshop(str(path)).make(Recipe())

    def test_a_pass_on_a_graph_with_weights_beside_it_stands_alone(self, workshop, graph, tmp_path):
        path = graph(3.0, external=True)
        made = workshop(path).make(Recipe((Untouched(),)))
        shutil.move(tmp_path / "w.bin", tmp_path / "elsewhere.bin")
        found = models.check_onnx(made.path).graph.initializer[0]
        assert np.all(numpy_helper.to_array(found, base_dir=str(made.path.parent)) == 3.0)
