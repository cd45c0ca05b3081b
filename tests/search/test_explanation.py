"""Why a winner won: layers paired before and after, and what was tried and left."""

from types import SimpleNamespace

import pytest

from fettle.measure.by_layer import LayerCost
from fettle.search._layer_change import changes
from fettle.search._rejected import Rejected, sketches
from fettle.search._stage_losses import StageLoss
from fettle.search.explanation import _said_of_stages, sentences, units


def layer(node, *names, ms=1.0, shape=(1, 8, 4, 4), op="Conv", precision="f32", macs=100):
    return LayerCost(node, op, (*names, node), shape, precision, ms, macs)


def pairs(found):
    return [(row.layer, row.before_ms, row.after_ms) for row in found]


BEFORE = [
    layer("node_1", "stem.conv", ms=4.0),
    layer("node_2", "block.0.conv", ms=3.0),
    layer("node_3", "block.1.conv", ms=2.0),
    layer("node_4", "head.fc", ms=1.0, op="MatMul", shape=(1, 10)),
]
PATHS = {"stem.conv": True, "block.0.conv": True, "block.1.conv": True, "head.fc": True}


def test_names_pair_where_they_hold():
    after = [layer("node_1", "block.1.conv", ms=0.5), layer("node_9", "stem.conv", ms=0.25)]
    assert pairs(changes(BEFORE, after, PATHS)) == [
        ("stem.conv", 4.0, 0.25),
        ("block.0.conv", 3.0, None),
        ("block.1.conv", 2.0, 0.5),
        ("head.fc", 1.0, None),
    ]


def test_order_pairs_those_that_survived_where_names_are_lost():
    after = [layer("conv2d", ms=0.4), layer("conv2d_1", ms=0.2), layer("linear", ms=0.1)]
    found = changes(BEFORE, after, PATHS | {"block.0.conv": False})
    assert [row.after_ms for row in found] == [0.4, None, 0.2, 0.1]
    assert [row.layer for row in found] == ["stem.conv", "block.0.conv", "block.1.conv", "head.fc"]


def test_another_architecture_is_paired_by_kind_and_size():
    after = [layer("a", ms=0.4), layer("b", ms=0.1, op="MatMul", shape=(1, 10))]
    found = changes(BEFORE, after, {})
    assert sum(row.before_ms or 0 for row in found) == 10.0
    assert sum(row.after_ms or 0 for row in found) == 0.5
    assert found[-1].after_ms == 0.1


def test_numbers_of_an_exporter_are_no_names():
    before = [layer("node_1", "conv2d", ms=1.0), layer("node_2", "conv2d_1", ms=2.0)]
    after = [layer("node_2", "conv2d_1", ms=0.5)]
    found = changes(before, after, {"first": False})
    assert [row.after_ms for row in found] != [None, None]


def test_what_a_layer_ran_in_is_told():
    (found,) = changes([layer("a.b", ms=2.0)], [layer("a.b", precision="int8", macs=50)])
    assert (found.before_precision, found.after_precision) == ("f32", "int8")
    assert (found.before_macs, found.after_macs) == (100, 50)
    assert found.to_json()["layer"] == "a.b"


def event(line, ms, drop=None, name="sketch"):
    return {"event": name, "trial": f"{line} > quantize.static @ ort", "ms": ms, "drop": drop}


SHAPE, OTHER, THIRD = (f"prune.blocks(ratio={r}, epochs=0)" for r in (0.3, 0.5, 0.8))
TAUGHT = "distill.logits(epochs=1)"
LONGER = "distill.logits(epochs=3)"


def test_a_sketch_is_left_where_it_went_no_further():
    events = [
        event(SHAPE, 2.0),
        event(OTHER, 1.0),
        event(THIRD, 0.5),
        event(f"{OTHER} > {TAUGHT}", 1.0, 0.04),
        event(f"{THIRD} > {TAUGHT}", 0.5, 0.31),
        event(f"{OTHER} > {TAUGHT} > {LONGER}", 1.0, 0.01),
        event(f"{OTHER} > {TAUGHT} > {LONGER}", 1.0, 0.01, name="trial"),
    ]
    found = {row.recipe: row for row in sketches(events, best_ms=1.0)}
    assert {line.partition(" > quantize")[0]: row.why for line, row in found.items()} == {
        SHAPE: "rung 0",
        f"{THIRD} > {TAUGHT}": "rung 1",
    }
    texts = [row.text for row in found.values()]
    assert texts[0] == "untrained already too slow"
    assert "31.00 pp" in texts[1]


@pytest.mark.parametrize("events", [[], [{"event": "stage", "name": "export", "seconds": 1.0}]])
def test_a_search_without_sketches_left_none(events):
    assert sketches(events, 1.0) == []


def stage(name, lost, drop, score=0.9):
    return StageLoss(name, score, lost, drop, 2000)


@pytest.mark.parametrize(
    ("metric", "stages", "expected"),
    [
        ("top1", [stage("prune", 0.02, 0.02), stage("quantize", -0.005, 0.015)],
         "Of top1 it lost 1.50 pp on the first 2,000 examples of select; `prune` lost most:"
         " 2.00 pp."),
        ("top1", [stage("quantize", -0.0015, -0.0015)],
         "Of top1 it gained 0.15 pp on the first 2,000 examples of select; no step lost any."),
        ("r2", [stage("quantize", 0.0123, 0.0123)],
         "Of r2 it lost 0.0123 on the first 2,000 examples of select; `quantize` lost most:"
         " 0.0123."),
    ],
)  # fmt: skip
def test_losses_are_told_in_the_metrics_own_unit(metric, stages, expected):
    assert _said_of_stages(metric, stages) == expected


def test_every_number_has_its_unit_and_the_untrained_are_told_apart():
    search = SimpleNamespace(
        task=SimpleNamespace(metric="top1"), setting=SimpleNamespace(batch=64),
        base=SimpleNamespace(row={"comparable_ms": 8.0}, runtime="ort"), objective=None,
    )  # fmt: skip
    winner = SimpleNamespace(recipe="quantize.static @ ort", row={"comparable_ms": 4.0})
    left = [Rejected("a", "rung 0", ""), Rejected("b", "rung 2", ""), Rejected("c", "rung 1", "")]
    said = sentences(search, winner, [], [], left)
    assert "4 ms for a batch of 64" in said[0]
    assert "2 given up while they were trained, 1 timed untrained and never trained" in said[-1]
    numbers = {name for row in (stage("s", 0, 0), left[0]) for name, value in row.to_json().items()
               if not isinstance(value, str)}  # fmt: skip
    assert numbers <= set(units(search))
