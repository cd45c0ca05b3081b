import itertools
import re

import pytest
import torch
from torch import nn

from fettle.core.context import Context
from fettle.core.errors import KnobError, ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.testing import Recorder


def gradual(**knobs):
    return TECHNIQUES.make("prune.gradual", **{"epochs": 1, "steps": 3, "batch_size": 16, **knobs})


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 4)).eval()


def zeros(model):
    return {n: p == 0 for n, p in model.named_parameters() if p.ndim > 1}


def test_the_linear_schedule_has_equal_steps():
    found = gradual(sparsity=0.7, steps=10, schedule="linear").shares()
    assert found == pytest.approx([0.07 * t for t in range(1, 11)])


@pytest.mark.parametrize(("initial", "final", "n"), [(0.0, 0.7, 10), (0.2, 0.9, 4), (0.5, 0.5, 3)])
def test_the_cubic_schedule_is_the_papers(initial, final, n):
    found = gradual(sparsity=final, initial=initial, steps=n, schedule="cubic").shares()
    assert found == pytest.approx(
        [final + (initial - final) * (1 - t / n) ** 3 for t in range(1, n + 1)]
    )
    assert found[-1] == final


def test_without_rewinding_the_rate_falls_once_over_all_steps():
    technique = gradual(rewind="none", steps=4, lr=0.1)
    plans = [technique.plan(step) for step in (1, 2, 3, 4)]
    for before, after in itertools.pairwise(plans):
        assert before.lr * before.lr_factor(99, 99) == pytest.approx(after.lr)
        assert after.lr_factor(0, 99) == pytest.approx(1)
    assert plans[-1].lr * plans[-1].floor == pytest.approx(0.1 * 0.01)
    assert [p.lr for p in map(gradual(steps=4, lr=0.1).plan, (1, 4))] == [0.1, 0.1]


def test_each_step_is_evaluated_and_told(tiny):
    recorder = Recorder()
    context = Context(progress=recorder)
    result = gradual(sparsity=0.6).within(context)(net(), tiny)
    told = [re.fullmatch(r"step (\d)/3: sparsity (0\.\d+), top1 on select (\d\.\d+)", line)
            for line in recorder.lines]  # fmt: skip
    assert [m[1] for m in told] == ["1", "2", "3"]
    assert [float(m[2]) for m in told] == pytest.approx([0.2, 0.4, 0.6])
    assert float(told[-1][3]) > 0.5
    assert {n: int(z.sum()) for n, z in zeros(result).items()} == {
        "1.weight": 1920,
        "3.weight": 120,
    }


def test_without_training_it_is_one_magnitude_pruning(tiny):
    found = gradual(sparsity=0.6, epochs=0, steps=5)(net(), tiny)
    expected = TECHNIQUES.make("prune.magnitude", sparsity=0.6, epochs=0)(net(), tiny)
    assert all(map(torch.equal, found.parameters(), expected.parameters()))


@pytest.mark.parametrize("rewind", ["none", "rate", "weights"])
def test_zeros_only_grow(tiny, rewind, monkeypatch):
    technique = type(gradual())
    seen, starts, train = [], [], technique.train

    def watched(self, model, *rest):
        seen.append(zeros(model))
        starts.append(model[1].weight.detach().clone())
        return train(self, model, *rest)

    monkeypatch.setattr(technique, "train", watched)
    model = net()
    gradual(sparsity=0.6, rewind=rewind)(model, tiny)
    for before, after in itertools.pairwise(seen):
        assert all((after[name] | ~before[name]).all() for name in before)
    original = model[1].weight.detach()
    back = torch.where(seen[2]["1.weight"], torch.zeros(()), original)
    assert torch.equal(starts[2], back) == (rewind == "weights")


def test_what_was_killed_goes_on_where_it_was(tiny, tmp_path, monkeypatch):
    through = gradual(sparsity=0.6)(net(), tiny)
    technique = gradual(sparsity=0.6).within(Context(checkpoints=tmp_path))
    train = type(technique)._train

    def killed(self, model, original, task, step):
        if step == 3:
            raise KeyboardInterrupt
        return train(self, model, original, task, step)

    monkeypatch.setattr(type(technique), "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        technique(net(), tiny)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-001", "step-002"]
    monkeypatch.setattr(type(technique), "_train", train)
    recorder = Recorder()
    again = technique.within(Context(checkpoints=tmp_path, progress=recorder))(net(), tiny)
    continued = [line for line in recorder.lines if "continuing at step" in line]
    assert [line.partition("continuing at ")[2].split(" from")[0] for line in continued] == [
        "step 3 of 3",
        "step 3 of 3",
    ]
    assert all(map(torch.equal, again.state_dict().values(), through.state_dict().values()))


def test_a_schedule_that_falls_is_refused(tiny):
    with pytest.raises(KnobError, match="initial"):
        gradual(initial=0.8, sparsity=0.5)(net(), tiny)


def test_a_model_without_such_weights_is_refused(tiny):
    with pytest.raises(ModelError, match="has none"):
        gradual(layers="convolutions")(net(), tiny)
