"""What one change alone does: against formulas, other libraries, and layers made by hand."""

import math
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from scipy import special, stats
from torch import nn

from fettle import models
from fettle.compress.prune.allocated import Parts
from fettle.core.errors import DataError
from fettle.core.shelf import PASSES
from fettle.export import export_onnx
from fettle.search import sensitivity
from fettle.search.sensitivity import Sensitivity, TooLong, damage, kl, nmse
from fettle.testing import Recorder, TinyTask

RNG = np.random.default_rng(0)


class Net(nn.Module):
    """Two hidden layers; the first of them has one weight that takes all of its int8 grid."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rough, self.fine = nn.Linear(64, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)
        with torch.no_grad():
            self.rough.weight[:, 0] = 60.0  # of a pixel that is silenced below

    def forward(self, x):
        x = x.flatten(1) * torch.cat([torch.zeros(1), torch.ones(63)])
        return self.head(torch.relu(self.fine(torch.relu(self.rough(x)))))


@pytest.fixture
def made(workshop, tmp_path):
    """A workshop on a tiny task, and the network above as ONNX."""
    shop = workshop(task=TinyTask())
    export_onnx(Net().eval(), shop.task, tmp_path / "net")
    return shop, tmp_path / "net" / "model.onnx"


def test_kl_is_that_of_scipy():
    a, b = RNG.normal(size=(2, 7, 5)) * 3
    p, q = special.softmax(a, 1), special.softmax(b, 1)
    expected = np.mean([stats.entropy(x, y) for x, y in zip(p, q, strict=True)])
    assert kl(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(expected, rel=1e-5)
    assert kl(a, a + 100) == pytest.approx(0, abs=1e-12)  # a shift of all logits says nothing


def test_nmse_is_the_formula():
    y, found = RNG.normal(size=(2, 6, 3))
    expected = sum((f - v) ** 2 for f, v in zip(found.flat, y.flat, strict=True)) / sum(
        v**2 for v in y.flat
    )
    assert nmse(y, found) == pytest.approx(expected)
    assert nmse(np.zeros(3), np.zeros(3)) == 0
    assert nmse(np.zeros(3), np.ones(3)) == math.inf


@pytest.mark.parametrize("measure", [kl, nmse])
def test_what_is_no_number_is_infinitely_bad(measure):
    bad = np.array([[1.0, np.nan]])
    assert measure(np.ones((1, 2)), bad) == math.inf
    assert measure(np.ones((1, 2)), np.array([[np.inf, 1.0]])) == math.inf


@pytest.mark.parametrize("measure", [kl, nmse])
@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((0, 3), (0, 3))])
def test_outputs_that_can_not_be_compared_are_refused(measure, shapes):
    with pytest.raises(DataError, match="one shape"):
        measure(*(np.ones(shape) for shape in shapes))


def test_classifiers_are_judged_by_kl_and_all_others_by_every_output():
    outputs = {"a": np.ones((2, 3)), "b": np.ones((2, 1))}
    other = {"a": np.ones((2, 3)) * 2, "b": np.ones((2, 1))}
    assert damage(TinyTask(), outputs, other) == pytest.approx(0, abs=1e-12)
    assert damage(SimpleNamespace(), outputs, other) == pytest.approx(0.5)


def test_each_layer_in_int8_alone_against_rounding_by_hand(made):
    shop, path = made
    found = Sensitivity(shop).of_int8(path, "net")
    assert len(found) == 3
    rough, fine, head = found.values()
    assert rough > 20 * fine
    assert rough > 20 * head
    assert all(value > 0 for value in found.values())
    assert next(iter(found.values())) == pytest.approx(by_hand(shop.task), rel=0.2)


def by_hand(task):
    """KL with the first layer's weights rounded in float64; its input's rounding is far finer."""
    net = Net().double().eval()
    x = torch.from_numpy(next(iter(task.batches("calibrate", 256))).inputs["input"]).double()
    with torch.no_grad():
        whole = net(x).numpy()
        scale = net.rough.weight.abs().amax(1, keepdim=True) / 127
        net.rough.weight.copy_((net.rough.weight / scale).round() * scale)
        return kl(whole, net(x).numpy())


def test_nothing_is_measured_twice(made, monkeypatch):
    shop, path = made
    first = Sensitivity(shop).of_int8(path, "net")
    monkeypatch.setattr(sensitivity._Quantized, "damage", None)
    monkeypatch.setattr(sensitivity._Quantized, "variants", None)
    assert Sensitivity(shop).of_int8(path, "net") == first


def test_what_was_measured_before_an_interruption_is_kept(made, monkeypatch):
    shop, path = made
    whole, measured = sensitivity._Quantized.damage, []

    def interrupted(self, layer):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(layer)
        return whole(self, layer)

    monkeypatch.setattr(sensitivity._Quantized, "damage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Sensitivity(shop).of_int8(path, "net")
    monkeypatch.setattr(
        sensitivity._Quantized, "damage", lambda s, n: measured.append(n) or whole(s, n)
    )
    found = Sensitivity(shop).of_int8(path, "net")
    assert measured == list(found)


def test_what_takes_too_long_says_how_long(made, monkeypatch):
    shop, path = made
    monkeypatch.setattr(sensitivity, "_TRIED", 1)
    with pytest.raises(TooLong, match="would take"):
        Sensitivity(shop, seconds=0.0).of_int8(path, "net")
    assert len(Sensitivity(shop).of_int8(path, "net")) == 3


def test_only_calibration_data_is_read_and_a_bar_moves(made, monkeypatch):
    shop, path = made
    splits, batches = set(), shop.task.batches
    monkeypatch.setattr(
        shop.task,
        "batches",
        lambda split, batch_size=256: splits.add(split) or batches(split, batch_size),
    )
    recorder = Recorder()
    monkeypatch.setattr(shop, "context", SimpleNamespace(progress=recorder, seed=0))
    work = Sensitivity(shop)
    monkeypatch.setattr(work, "_pass", lambda: PASSES.make("graph.static_int8"))
    work.of_int8(path, "net")
    assert splits == {"calibrate"}
    assert [bar.done for bar in recorder.bars] == [3]


@pytest.fixture
def parts():
    task = TinyTask()
    model = models.load("cifar:resnet8", signature=task.signature).eval()
    with torch.no_grad():  # what changes nothing when it goes
        model.layer1[0].bn2.weight.zero_()
    return Parts(model, (torch.from_numpy(task.example_inputs(2)["input"]),))


def test_a_block_that_does_nothing_does_no_damage(workshop, parts):
    found = Sensitivity(workshop(task=TinyTask())).of_blocks(parts)
    assert set(found) == set(parts.blocks)
    assert found["layer1.0"] == pytest.approx(0, abs=1e-9)


def test_widths_do_more_damage_the_more_goes_and_none_where_nothing_is_read(workshop, parts):
    found = Sensitivity(workshop(task=TinyTask())).of_widths(parts, (0.5, 0.25))
    assert found["layer1.0.conv1"][0.5] == pytest.approx(0, abs=1e-9)
    assert found["layer3.0.conv1"][0.5] > 0
    assert all(set(each) == {0.5, 0.25} for each in found.values())


def test_the_variants_of_one_calibration_are_the_masters_that_leave_makes(made):
    shop, path = made
    quantize = PASSES.make("graph.static_int8")
    variants = quantize.variants(ir.load(path), shop.task)
    left = variants.layers[0]
    one = variants.leaving([left])
    other = PASSES.make("graph.static_int8", leave=left)(ir.load(path), shop.task)
    assert [n.op_type for n in one.graph] == [n.op_type for n in other.graph]
    held, expected = (
        {k: v.const_value.numpy() for k, v in m.graph.initializers.items()} for m in (one, other)
    )
    assert held.keys() == expected.keys()
    assert all(np.array_equal(held[k], expected[k]) for k in held)
