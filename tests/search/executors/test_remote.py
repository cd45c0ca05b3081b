"""A workshop whose stages a crew does makes what a workshop in one process makes."""

import pytest

from fettle.core.arrays import SPLITS
from fettle.core.context import Context
from fettle.core.errors import CheckFailed, InputError, ModelError
from fettle.core.hashing import file_sha256
from fettle.core.progress import Silent
from fettle.core.recipe import Recipe
from fettle.search import Source
from fettle.search.clock import Clock, OutOfTime, Watched
from fettle.search.executors._remote import RemoteWorkshop
from fettle.testing.fakes import TinyTask
from fettle.train import FitPlan

PLAN = FitPlan(epochs=1)
PRUNED = "prune.magnitude(epochs=1, sparsity=0.5)"
CHAIN = f"{PRUNED} > prune.magnitude(sparsity=0.75, epochs=1)"


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("line", ["", PRUNED, CHAIN, f"{PRUNED} > quantize.static"])
@pytest.mark.parametrize("plan", [None, PLAN])
def test_the_same_stages_under_the_same_keys_in_the_same_order(
    line, plan, by_crew, alone, recipe, told
):
    here, there = alone(plan=plan), by_crew(plan=plan)
    for _ in range(2):  # made, then found
        own, sent = here.make(recipe(line)), there.make(recipe(line))
        assert sent.key == own.key
        assert [(s.name, s.cached) for s in sent.stages] == [(s.name, s.cached) for s in own.stages]
        assert file_sha256(sent.path) == file_sha256(own.path)
    assert told(there.store.root) == told(here.store.root) != []


@pytest.mark.usefixtures("work")
def test_the_driver_makes_nothing_itself(crew, by_crew, recipe, monkeypatch):
    shop = by_crew(plan=PLAN)
    monkeypatch.setattr(RemoteWorkshop, "_apply", None)
    monkeypatch.setattr(RemoteWorkshop, "_load", None)
    shop.make(recipe(CHAIN))
    steps = [f"train({shop.source.spec})", *map(str, recipe(CHAIN).steps), "export"]
    assert crew.names == steps


@pytest.mark.usefixtures("work")
def test_a_teacher_is_trained_once_for_all(crew, by_crew, alone, recipe, linear, told):
    teacher = Source(linear, plan=FitPlan(epochs=2))
    lines = ["distill.logits(epochs=1)", "distill.logits(epochs=1, temperature=3.0)"]
    here, there = alone(teacher=teacher), by_crew(teacher=teacher)
    for line in lines:
        assert there.make(recipe(line)).key == here.make(recipe(line)).key
    assert crew.names.count(f"train({linear})") == 1
    assert told(there.store.root) == told(here.store.root)


@pytest.mark.usefixtures("work")
def test_a_lost_job_begins_again_and_nothing_else_does(crew, by_crew, recipe):
    crew.losses = [PRUNED]
    made = by_crew(plan=PLAN).make(recipe(PRUNED))
    assert crew.names == [made.stages[0].name, PRUNED, PRUNED, "export"]


@pytest.mark.usefixtures("work")
def test_a_job_that_is_lost_each_time_is_an_error(crew, by_crew, recipe):
    crew.losses = ["export"] * 3
    shop = by_crew()
    with pytest.raises(CheckFailed, match=r"`export` was lost 3 times.*memory"):
        shop.make(recipe(""))
    assert crew.names == ["export"] * 3
    shop.make(recipe(""))  # asked for again, it is tried again


@pytest.mark.usefixtures("work")
def test_what_was_begun_ahead_is_told_in_the_order_of_asking(crew, by_crew, alone, told):
    crew.room = 2
    recipes = [Recipe.parse(f"prune.magnitude(sparsity={s}, epochs=1)") for s in (0.25, 0.5, 0.75)]
    here, there = alone(), by_crew()
    there.begin(reversed(recipes))
    assert len(crew.started) == 2
    for recipe in recipes:
        here.make(recipe)
        there.make(recipe)
    assert sorted(crew.names) == sorted([*(str(r) for r in recipes), *["export"] * 3])
    assert told(there.store.root) == told(here.store.root)


@pytest.mark.usefixtures("work")
def test_without_room_nothing_is_begun_ahead(crew, by_crew, recipe):
    crew.room = 0
    shop = by_crew()
    shop.begin([recipe(PRUNED)])
    assert crew.started == []
    assert shop.make(recipe(PRUNED)).path.exists()


def test_an_error_of_a_node_is_raised_as_it_was(by_crew, recipe, monkeypatch):
    from fettle import export

    def refuse(*_, **__):
        raise ModelError("this model can't be exported; give another")

    monkeypatch.setattr(export, "export_onnx", refuse)
    with pytest.raises(ModelError, match=r"^this model can't be exported; give another$"):
        by_crew().make(recipe(""))


@pytest.mark.usefixtures("work")
def test_the_end_of_the_time_stops_what_is_under_way(crew, by_crew, recipe):
    shop = by_crew()
    crew.wait = lambda tickets, seconds: []  # it works on and on
    shop.context = Context(progress=Watched(Silent(), Clock(0.0)))
    with pytest.raises(OutOfTime):
        shop.make(recipe(PRUNED))
    assert crew.cancelled == [PRUNED]


@pytest.mark.usefixtures("work")
def test_ctrl_c_stops_what_is_under_way(crew, by_crew, recipe):
    def interrupted(tickets, seconds):
        raise KeyboardInterrupt

    crew.room, crew.wait = 2, interrupted
    shop = by_crew()
    shop.begin([recipe(PRUNED), recipe("prune.magnitude(sparsity=0.25, epochs=1)")])
    with pytest.raises(KeyboardInterrupt):
        shop.make(recipe(PRUNED))
    assert len(crew.cancelled) == 2


def test_what_lives_in_this_process_alone_is_refused(crew, store, linear):
    import torch

    from fettle.models import keep_live

    live = Source(keep_live(torch.nn.Linear(2, 2)))
    with pytest.raises(InputError, match="live module can't be sent"):
        RemoteWorkshop(crew, "digits", "auto", live, TinyTask(), store, Context())
    with pytest.raises(InputError, match=r"TinyTask can't be sent.*give `data` by its name"):
        RemoteWorkshop(crew, "", "auto", Source(linear), TinyTask(), store, Context())


@pytest.mark.usefixtures("work")
def test_a_node_with_other_data_is_refused(by_crew, recipe):
    shop = by_crew()
    shop._shop["prints"] = dict.fromkeys(SPLITS, "other")
    with pytest.raises(InputError, match=r"splits .*'test'.* differ on this node"):
        shop.make(recipe(""))


@pytest.mark.usefixtures("work")
def test_a_node_with_other_versions_is_refused(by_crew, recipe):
    shop = by_crew()
    shop._shop["versions"] = {**shop._versions, "torch": "0.4"}
    with pytest.raises(InputError, match=r"this node has torch 2.* for 0\.4: install"):
        shop.make(recipe(""))
