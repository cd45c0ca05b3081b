import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from fettle.compress._masks import KeepZeros, with_zeros_kept
from fettle.compress._technique import example_tensors
from fettle.compress.quantize import _pt2e
from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.train import FitPlan, Hooks, fit


def net(seed=0, pruned=True):
    """Two layers; torch's own pruning made half of the weights zero."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    for layer in (model[0], model[3]) if pruned else ():
        prune.l1_unstructured(layer, "weight", 0.5)
        prune.remove(layer, "weight")
    return model


def zeros(model):
    return {n: p == 0 for n, p in model.named_parameters() if p.ndim > 1}


def same(a, b):
    return len(a) == len(b) and all(torch.equal(a[n], b[n]) for n in a)


def fill(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_keeps_zeros_and_without_it_does_not(tiny, optimizer):
    plan = FitPlan(epochs=2, batch_size=8, optimizer=optimizer, momentum=0.9, weight_decay=0.1)
    model, free = net(), net()
    before = zeros(model)
    history = fit(model, tiny, plan, hooks=with_zeros_kept(Hooks(), model))
    assert history.steps > 2
    assert same(zeros(model), before)
    assert sum(int(z.sum()) for z in before.values()) == 18 + 288
    fit(free, tiny, plan)
    assert not same(zeros(free), before)


def test_biases_and_norms_are_no_weights():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        model[0].bias.zero_()
        model[0].weight[0, 0] = 0
    keep = KeepZeros.of(model)
    fill(model)
    keep(model)
    assert model[0].weight[0, 0] == 0
    assert model[0].weight.sum() == 8
    assert model[0].bias.sum() == 3


def test_a_tensor_that_is_zero_throughout_is_to_be_learned():
    model = net(pruned=False)
    nn.init.zeros_(model[3].weight)
    assert not KeepZeros.of(model)
    assert with_zeros_kept(hooks := Hooks(key="mine"), model) is hooks


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.adapters = nn.ModuleList([nn.Linear(2, 2)])
        self.module = module


def orig_mod(module):
    """What torch.compile names it."""
    return nn.ModuleDict({"_orig_mod": module})


@pytest.mark.parametrize("wrap", [Wrapped, lambda m: Wrapped(nn.Sequential(m)), orig_mod])
def test_wrappers_are_looked_through(wrap):
    model = net()
    before, keep = zeros(model), KeepZeros.of(model)
    wrapped = wrap(model)
    fill(wrapped)
    keep(wrapped, 1, 2)
    assert same(zeros(model), before)


def test_weights_under_other_names_are_found_by_their_order():
    model, other = net(), net(1, pruned=False)
    renamed = nn.ModuleDict({"first": other[0], "last": other[3]})
    KeepZeros.of(model)(renamed)
    assert same(dict(enumerate(zeros(other).values())), dict(enumerate(zeros(model).values())))


def test_another_model_is_refused():
    with pytest.raises(ModelError, match="but it has others"):
        KeepZeros.of(net())(nn.Linear(3, 3))


def test_shared_weights_are_kept_once():
    shared = nn.Linear(4, 4)
    with torch.no_grad():
        shared.weight[:, ::2] = 0
    keep = KeepZeros.of(nn.Sequential(shared, nn.ReLU(), shared))
    assert len(keep.zeros) == 1
    untied = nn.Sequential(shared, nn.ReLU(), shared)
    fill(untied)
    keep(untied)
    assert (shared.weight == 0).sum() == 8


@pytest.mark.parametrize("norm", [False, True])
def test_a_prepared_graph_trains_with_the_zeros_of_its_module(tiny, norm):
    model = net()
    if norm:
        model.insert(1, nn.BatchNorm2d(4))
    before = list(zeros(model).values())
    keep = KeepZeros.of(model)
    prepared = _pt2e.prepare_training(model, example_tensors(tiny))
    hooks = Hooks(set_mode=_pt2e.set_training, on_step=keep)
    fit(prepared, tiny, FitPlan(epochs=1, batch_size=16), hooks=hooks, validate=False)
    assert all(map(torch.equal, zeros(prepared).values(), before))
    assert same(KeepZeros.of(prepared).zeros, zeros(prepared))


def test_it_travels_to_other_processes():
    model = net()
    again = pickle.loads(pickle.dumps(with_zeros_kept(Hooks(on_step=negate), model)))
    fill(model)
    again.on_step(model, 1, 2)
    assert (model[3].weight == 0).sum() == 288
    assert model[3].weight.sum() == -288
    assert again.key == "zeros kept"


def negate(model, step, total):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()


def test_a_resumed_training_has_the_same_zeros(tiny, tmp_path):
    """Broken off after an epoch, it ends with the weights of one that ran through."""
    plan = FitPlan(epochs=3, batch_size=16)
    through = net()
    fit(through, tiny, plan, hooks=with_zeros_kept(Hooks(), through))
    context = Context(checkpoints=tmp_path)
    broken = net()
    hooks = with_zeros_kept(Hooks(on_step=BreakAt(9)), broken)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, tiny, plan, context, hooks)
    model = net()
    history = fit(model, tiny, plan, context, with_zeros_kept(Hooks(), model))
    assert history.resumed_at
    assert same(dict(model.state_dict()), dict(through.state_dict()))
    assert same(zeros(model), zeros(net()))


class BreakAt:
    def __init__(self, step):
        self.step = step

    def __call__(self, model, step, total):
        if step == self.step:
            raise KeyboardInterrupt


def test_a_copy_of_the_model_is_kept_too():
    model = net()
    twin = copy.deepcopy(model)
    fill(twin)
    KeepZeros.of(model)(twin)
    assert same(zeros(twin), zeros(model))
