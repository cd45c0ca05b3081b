"""The loop against a plain torch loop written out, and what it must learn on real digits."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fettle.core.context import Context
from fettle.core.errors import CheckFailed, DataError, InputError, ModelError
from fettle.train import FitPlan, History, Hooks, accuracy, fit

CPU = FitPlan(accelerator="cpu")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_learns_digits(net, digits):
    model = net()
    history = fit(model, digits, CPU.but(epochs=8, lr=0.1))
    assert accuracy(model, digits, "select") > 0.8  # chance is 0.1
    assert history.epochs[-1].metric == pytest.approx(accuracy(model, digits, "select"))
    assert [record.epoch for record in history.epochs] == list(range(8))
    assert history.epochs[-1].loss < history.epochs[0].loss / 2
    assert history.steps == 8 * digits.steps(64)
    assert not model.training


def test_equals_a_loop_written_out(plain_net, digits):
    plan = CPU.but(epochs=2, lr=0.1, label_smoothing=0.1, clip=0.5, weight_decay=0.01, warmup=0.3)
    fitted = plain_net()
    fit(fitted, digits, plan, Context(seed=3), validate=False)

    model = plain_net()
    decayed = [p for n, p in model.named_parameters() if n.endswith("weight")]
    others = [p for n, p in model.named_parameters() if n.endswith("bias")]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    total, step = 2 * digits.steps(64), 0
    for epoch in range(2):
        for batch in digits.epoch(3, epoch, 64):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * plan.lr_factor(step, total)
            logits = model(torch.from_numpy(batch.inputs["input"]))
            loss = F.cross_entropy(logits, torch.from_numpy(batch.targets), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            step += 1
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(fitted.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_accumulated_micro_batches_equal_one_large_batch(plain_net, digits):
    large, small = plain_net(), plain_net()
    one = fit(large, digits, CPU.but(epochs=2, batch_size=200))
    two = fit(small, digits, CPU.but(epochs=2, batch_size=50, accumulate=4))
    assert one.steps == two.steps == 2 * digits.size("train") // 200
    for mine, theirs in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_short_last_group_weighs_its_own_batches(plain_net, digits):
    model = plain_net()
    history = fit(model, digits, CPU.but(epochs=1, batch_size=50, accumulate=3))
    assert history.steps == 6  # 16 micro-batches of 50: five groups of three and one of one


def test_same_seed_gives_the_same_weights_and_another_seed_others(net, digits):
    plan = CPU.but(epochs=1)
    states = []
    for seed, noise in ((1, 11), (1, 12), (2, 11)):
        model = net()
        torch.manual_seed(noise)  # what the caller's generator holds must not matter
        fit(model, digits, plan, Context(seed=seed))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["0.weight"], states[2]["0.weight"])


def test_leaves_the_callers_random_generator_alone(net, digits):
    model = net()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(model, digits, CPU.but(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_hooks_are_called_and_the_callers_loss_is_used(net, digits):
    modes, steps, epochs = [], [], []

    def loss(model, inputs, batch):
        return F.cross_entropy(model(*inputs), torch.from_numpy(batch.targets)) + 100

    def set_mode(model, training):
        modes.append(training)
        model.train(training)

    hooks = Hooks(
        loss=loss,
        set_mode=set_mode,
        on_step=lambda model, step, total: steps.append((step, total)),
        on_epoch=lambda model, record: epochs.append(record),
    )
    history = fit(net(), digits, CPU.but(epochs=2), hooks=hooks)
    total = history.steps
    assert steps == [(step, total) for step in range(1, total + 1)]
    assert tuple(epochs) == history.epochs
    assert epochs[0].loss > 100
    assert modes == [True, False, True, False, False]


def test_groups_of_the_caller_keep_their_own_rate_and_frozen_weights_stay(net, digits):
    model = net()
    model[0].requires_grad_(False)
    before = weights(model)
    hooks = Hooks(
        parameters=lambda m: [{"params": [m[5].weight]}, {"params": [m[5].bias], "lr": 1e-8}]
    )
    fit(model, digits, CPU.but(epochs=1), hooks=hooks)
    moved = {name: not torch.equal(before[name], t) for name, t in model.named_parameters()}
    assert moved["5.weight"]
    assert not moved["0.weight"]
    torch.testing.assert_close(model[5].bias, before["5.bias"], rtol=0, atol=1e-6)


def test_a_diverging_run_says_where_and_how_to_mend_it(plain_net, digits):
    def loss(model, inputs, batch):
        return model(*inputs).square().sum() * 1e30

    with pytest.raises(
        CheckFailed, match=r"diverged at step \d+: .*`lr` \(it is 100\).*clip"
    ) as it:
        fit(plain_net(), digits, CPU.but(epochs=1, lr=100, warmup=0), hooks=Hooks(loss=loss))
    assert it.value.exit_code == 1


def test_weights_spoiled_by_the_last_step_are_noticed(plain_net, digits):
    def spoil(model, step, total):
        if step == total:
            with torch.no_grad():
                model[1].weight[0, 0] = float("nan")

    with pytest.raises(CheckFailed, match=r"weights `1.weight` are no longer finite"):
        fit(plain_net(), digits, CPU.but(epochs=1), hooks=Hooks(on_step=spoil), validate=False)


def test_no_epochs_changes_nothing(net, digits):
    model = net()
    before = weights(model)
    assert fit(model, digits, CPU.but(epochs=0)) == History()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not model.training


def test_refuses_what_it_cannot_train(net, digits):
    frozen = net().requires_grad_(False)
    with pytest.raises(InputError, match=r"no trainable parameter; call `model.requires_grad_"):
        fit(frozen, digits, CPU)
    with pytest.raises(ModelError, match=r"float32.*`0.weight` is torch.float16.*model.float\(\)"):
        fit(net().half(), digits, CPU)


def test_an_epoch_that_ends_early_is_an_error(net, digits, monkeypatch):
    monkeypatch.setattr(digits, "epoch", lambda seed, epoch, batch_size, shard: iter([]))
    with pytest.raises(DataError, match=r"expected to yield 12 batches.*stopped at 0 of 12"):
        fit(net(), digits, CPU)


def test_history_survives_json(net, digits):
    history = fit(net(), digits, CPU.but(epochs=1))
    assert History.from_json(json.loads(json.dumps(history.to_json()))) == history
    without = fit(net(), digits, CPU.but(epochs=1), validate=False)
    assert without.epochs[0].metric is None


def test_progress_counts_every_step(net, digits):
    class Counting:
        def __init__(self):
            self.opened, self.notes = [], []

        def say(self, message):
            raise AssertionError(message)

        def bar(self, title, total, done=0):
            self.opened.append((title, total, done))
            return self

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return None

        def step(self, note="", amount=1):
            self.notes.append(note)

    progress = Counting()
    history = fit(net(), digits, CPU.but(epochs=2), Context(progress=progress))
    assert progress.opened == [("train Sequential", history.steps, 0)]
    assert len(progress.notes) == history.steps
    assert progress.notes[-1].startswith("epoch 2/2, loss ")
    assert f"top1 {history.epochs[0].metric:.4f}" in progress.notes[-1]
