"""What a search would try: costs by hand, a rehearsal that writes nothing, and its text."""

import pytest
import torch

from fettle import tasks
from fettle.core.recipe import parse_step
from fettle.core.verdict import Budget
from fettle.search import Setting, Source
from fettle.search._costs import Costs, epoch_seconds
from fettle.search._overlay import NotDone, Overlay
from fettle.search._store import Store
from fettle.search.dry_run import forecast_text, foresee
from fettle.search.journal import Journal
from fettle.search.optimize import Wish, optimize

MODEL = "cifar:resnet8x0.5"
SETTING = Setting(
    Budget(max_drop=0.2), target=("onnxruntime",), batch=16, threads=1, seconds=0.2, data="digits"
)
TRAINING_FREE = Wish(skip=("prune", "distill", "quantize.aware"))


def stage(name, seconds):
    return {"event": "stage", "name": name, "seconds": seconds}


def test_what_was_done_before_costs_what_it_took():
    costs = Costs([stage("lower for ort", 3.0), stage("lower for ort", 5.0), stage("x", 7.0)])
    assert costs.named("lower") == 4.0
    assert costs.named("x") == 7.0
    assert costs.named("y") is None
    assert costs.of(parse_step("prune.blocks(epochs=0)")) is None


def test_a_training_costs_its_epochs():
    costs = Costs([stage("distill.logits(epochs=3)", 6.0), stage("distill.logits(epochs=9)", 18.0)])
    assert costs.of(parse_step("distill.logits(epochs=27)")) == pytest.approx(54.0)
    assert costs.of(parse_step("distill.features(epochs=2)")) is None


def test_an_epoch_that_was_timed_stands_in_for_what_was_never_done():
    costs = Costs([], epoch=10.0)
    assert costs.of(parse_step("distill.logits(epochs=3)")) == 30.0
    assert costs.of(parse_step("quantize.aware(epochs=2)")) == 40.0
    assert costs.of(parse_step("prune.channels(epochs=0)")) is None


def test_an_export_is_counted_without_what_was_made_on_its_way():
    costs = Costs([stage("export", 300.0), stage("export", 3.0), stage("export", 40.0)])
    assert costs.named("export") == 3.0
    assert costs.of(parse_step("quantize.static")) == 0.0  # the export's own part


def test_a_removal_that_was_done_with_another_ratio_tells_what_it_takes():
    costs = Costs([stage("prune.blocks(ratio=0.5, epochs=0)", 4.0)])
    assert costs.of(parse_step("prune.blocks(ratio=0.8, epochs=0)")) == 4.0


def test_an_overlay_finds_what_is_there_and_writes_beside_it(tmp_path):
    below = Store(tmp_path / "out", Journal(tmp_path / "out" / "journal.jsonl"))
    below.value("a", "first", lambda: 1)
    before = sorted(str(p) for p in (tmp_path / "out").rglob("*"))
    over = Overlay(below, tmp_path / "beside")
    assert over.value("a", "first", lambda: 2)[0] == 1
    with pytest.raises(NotDone, match="second"):
        over.value("b", "second", lambda: 2)
    over.works = True
    assert over.value("b", "second", lambda: 2)[0] == 2
    assert sorted(str(p) for p in (tmp_path / "out").rglob("*")) == before


def test_an_epoch_is_timed_where_there_is_one(workshop):
    torch.manual_seed(0)
    assert epoch_seconds(workshop()) > 0
    assert epoch_seconds(workshop(spec="gone.onnx")) is None


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits")


def test_a_fresh_folder_is_not_even_made(task, tmp_path):
    out = tmp_path / "out"
    found = foresee(Source(MODEL), task, out, SETTING, Wish())
    assert not out.exists()
    kinds = [row["kind"] for row in found["would"]]
    assert kinds[0] == "trial"
    assert found["there"] == 0
    recipes = [row["what"] for row in found["would"]]
    assert "quantize.static" in recipes
    assert any(r.startswith("prune.") and "distill." in r for r in recipes)
    assert found["seconds"] > 0
    assert found["epoch_seconds"] > 0
    text = forecast_text(found)
    assert "without training" in text
    assert "tries at most" in text
    assert found["assumed"] in text


@pytest.mark.slow
def test_what_is_done_costs_nothing_and_nothing_is_written(task, tmp_path):
    out = tmp_path / "out"
    optimize(Source(MODEL), task, out, SETTING, TRAINING_FREE)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    found = foresee(Source(MODEL), task, out, SETTING, TRAINING_FREE)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    assert all(row["there"] for row in found["would"]), found["would"]
    assert found["seconds"] == 0
    assert "done" in forecast_text(found)


def test_a_limit_ends_the_list(task, tmp_path):
    whole = foresee(Source(MODEL), task, tmp_path / "a", SETTING, Wish())["would"]
    short = foresee(Source(MODEL), task, tmp_path / "b", SETTING, Wish(seconds=12.0))["would"]
    assert len(short) < len(whole)


def test_what_is_not_allowed_is_not_listed(task, tmp_path):
    found = foresee(Source(MODEL), task, tmp_path / "out", SETTING, TRAINING_FREE)
    assert not any("prune." in row["what"] for row in found["would"])
