"""Strategies that allocate, on a real small network: which steps they propose, in what order."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from fettle import models
from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.recipe import Recipe
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.search import Source, Workshop
from fettle.search._left_in_float import LeftInFloat
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.search.latency_model import LatencyModel
from fettle.search.optimize import Wish
from fettle.search.sensitivity import Sensitivity, TooLong
from fettle.search.strategies import _allocated
from fettle.search.strategies._allocated import allocated_shapes
from fettle.search.strategies.mixed_precision import MixedPrecision, rungs
from fettle.testing import Recorder, TinyTask


class Played:
    """A search whose trials are told, and whose attempts keep `promise` by their step's place."""

    least_gain = 0.05

    def __init__(self, workshop, batch=2, promise=0.3, ms=(10.0, 4.0)):
        self.workshop, self.task, self.progress = workshop, workshop.task, workshop.context.progress
        self.setting, self.wish = SimpleNamespace(batch=batch), Wish()
        self.clock = SimpleNamespace(left=math.inf)
        runtime = OnnxRuntime(threads=1)
        line = "graph.static_int8" if workshop.source.is_onnx else "quantize.static"
        made = workshop.make(Recipe.parse(line))
        self.base, self.static = (
            SimpleNamespace(
                recipe=Recipe.parse(steps), precision=precision, runtime=runtime, lowering=(),
                model=path, is_plain=not steps, row={"comparable_ms": each, "promise": likely},
            )
            for steps, precision, path, each, likely in (
                ("", "f32", workshop.make(Recipe()).path, ms[0], 1.0),
                (line, "int8", made.path, ms[1], promise),
            )
        )  # fmt: skip
        self.trials, self.leader = [self.base, self.static], self.base
        self.attempted = []

    def attempt(self, candidate):
        self.attempted.append(candidate.recipe.steps[0])
        return [SimpleNamespace(row={"promise": self.promise(candidate.recipe.steps[0])})]

    def promise(self, step):
        return 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


def shop(folder, spec="cifar:resnet8x0.5", seed=0):
    store = Store(folder / "out", Journal(folder / "out" / "journal.jsonl"))
    return Workshop(Source(spec), TinyTask(), store, Context(seed=seed, progress=Recorder()))


@pytest.fixture
def search(folder, monkeypatch):
    """A search on a small ResNet; a layer in float takes the longer, the later it comes."""
    found = Played(shop(folder))
    order = []

    def times(self, layers):
        order.append(layers[0])
        return 1 + 0.02 * len(order)

    monkeypatch.setattr(LeftInFloat, "times", times)
    return found


def left(step):
    return [name.strip() for name in step.leave.split(",")]


def test_it_applies_where_fast_int8_is_not_likely(search):
    assert MixedPrecision().applies(search)
    search.static.row["promise"] = 0.9
    assert not MixedPrecision().applies(search)
    search.static.row |= {"promise": 0.1, "comparable_ms": 12.5}
    assert not MixedPrecision().applies(search)
    search.trials = [search.base]
    assert not MixedPrecision().applies(search)


def test_rungs_name_modules_and_leave_ever_fewer(search):
    found = rungs(search)
    paths = dict(models.load("cifar:resnet8x0.5").named_modules())
    assert len(found) > 2
    assert all(step.name() == "quantize.static" for step in found)
    assert all(name in paths for step in found for name in left(step))
    counts = [len(left(step)) for step in found]
    assert counts == sorted(counts, reverse=True)
    made = search.workshop.make(Recipe((found[-1],)))
    assert made.path.is_file()


def test_rungs_of_an_onnx_file_name_its_nodes(search, tmp_path, monkeypatch):
    path = search.base.model
    foreign = Played(shop(tmp_path, str(path)))
    found = rungs(foreign)
    assert all(step.name() == "graph.static_int8" for step in found)
    assert foreign.workshop.make(Recipe((found[-1],))).path.is_file()


@pytest.mark.parametrize(("fit", "expected"), [(0, 2), (99, 3)])
def test_the_ladder_is_searched_by_halves(search, monkeypatch, fit, expected):
    """`fit` rungs from the slowest on are likely; what comes next is decided by that."""
    ladder = [SimpleNamespace(name=lambda: "x", place=i) for i in range(7)]
    monkeypatch.setattr("fettle.search.strategies.mixed_precision.rungs", lambda _: ladder)
    search.promise = lambda step: 1.0 if step.place < fit else 0.0
    MixedPrecision().explore(search)
    places = [step.place for step in search.attempted]
    assert places == ([3, 1, 0] if fit == 0 else [3, 5, 6])


@pytest.mark.parametrize("error", [TooLong("it", 1e6), ModelError("no")])
def test_what_can_not_be_measured_is_said(search, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(Sensitivity, "of_int8", fails)
    monkeypatch.setattr(Sensitivity, "of_blocks", fails)
    MixedPrecision().explore(search)
    assert not search.attempted
    assert allocated_shapes(search) == []
    assert [line.partition(":")[0] for line in search.progress.lines[-2:]] == [
        "mixed precision is not tried",
        "shapes are not allocated",
    ]


@pytest.fixture
def by_weights(monkeypatch):
    """Kernels that take as long as they have weights: no time is measured."""

    def ms(self, kernels):
        return [1e-3 * sum(int(np.prod(t.dims)) for t in k.weights.values()) for k in kernels]

    monkeypatch.setattr(LatencyModel, "ms", ms)


def test_allocated_shapes_are_ever_smaller_and_can_be_made(search, by_weights):
    found = allocated_shapes(search)
    assert len(found) > 2
    assert all(step.name() == "prune.allocated" and step.epochs == 0 for (step,) in found)
    sizes = [sum(p.numel() for p in search.workshop.module(steps).parameters()) for steps in found]
    assert sizes == sorted(sizes, reverse=True)
    whole = sum(p.numel() for p in search.workshop.module().parameters())
    assert whole > sizes[0] > sizes[-1]


def test_no_shapes_are_allocated_where_they_may_not_be(search, by_weights):
    search.wish = Wish(skip=("prune.allocated",))
    assert allocated_shapes(search) == []
    search.wish = Wish()
    search.trials = [search.base]
    assert allocated_shapes(search) == []


def test_a_network_without_parts_has_no_shapes(tmp_path, linear, by_weights):
    search = Played(shop(tmp_path, linear))
    assert allocated_shapes(search) == []


def test_groups_inside_a_block_are_told_from_those_around_it(search):
    parts = _allocated._parts(search)
    inside = _allocated._inside(parts, dict.fromkeys(parts.groups), ["layer1.0"])
    assert inside == {"layer1.0.conv1": "layer1.0"}
