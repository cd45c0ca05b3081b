"""A run that was broken off and taken up again ends where an unbroken one does, bit for bit."""

import json
import signal

import pytest
import safetensors
import torch

from fettle.core.context import Context
from fettle.core.errors import CheckFailed, InputError, StorageError
from fettle.core.progress import Silent
from fettle.train import FitPlan, Hooks, _loop, fit, keep_mode

PLAN = FitPlan(accelerator="cpu", epochs=3, accumulate=2, batch_size=48)
FILE = "fit.safetensors"


class StopError(Exception):
    """What breaks a run off."""


class Says(Silent):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


def same(a, b):
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def stop_at_step(number):
    def on_step(model, step, total):
        if step == number:
            raise StopError

    return Hooks(on_step=on_step)


def stop_after_epoch(number):
    def on_epoch(model, record):
        if record.epoch == number:
            raise StopError

    return Hooks(on_epoch=on_epoch)


def without_times(history):
    return [(r.epoch, r.loss, r.metric, r.lr) for r in history.epochs]


@pytest.fixture
def unbroken(net, digits):
    def train(plan):
        model = net()
        return model, fit(model, digits, plan)

    return train


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("hooks", [stop_at_step(13), stop_after_epoch(1)], ids=["step", "epoch"])
def test_resumed_equals_unbroken(net, digits, unbroken, tmp_path, monkeypatch, hooks, optimizer):
    plan = PLAN.but(optimizer=optimizer, lr=0.01)
    reference, expected = unbroken(plan)
    monkeypatch.setattr(_loop, "SAVE_EVERY_SECONDS", 0.0)
    broken = net()
    with pytest.raises(StopError):
        fit(broken, digits, plan, Context(checkpoints=tmp_path), hooks=hooks)
    assert not same(broken, reference)

    resumed = net()
    history = fit(resumed, digits, plan, Context(checkpoints=tmp_path))
    assert history.resumed_at is not None
    assert 0 < history.resumed_at < history.steps
    assert same(resumed, reference)
    assert without_times(history) == without_times(expected)


def test_saves_after_every_epoch_even_when_no_time_has_passed(net, digits, tmp_path):
    steps_an_epoch = fit(net(), digits, PLAN.but(epochs=1)).steps
    with pytest.raises(StopError):
        fit(net(), digits, PLAN, Context(checkpoints=tmp_path), stop_at_step(2 * steps_an_epoch))
    history = fit(net(), digits, PLAN, Context(checkpoints=tmp_path))
    assert history.resumed_at == steps_an_epoch


def ctrl_c():
    """Call the handler as Ctrl-C would.

    No real signal: an engine that ran in an earlier test may have left this process a signal stack
    of its own. Real ones are sent to processes of their own in tests/cli.
    """
    signal.getsignal(signal.SIGINT)(signal.SIGINT, None)


def test_ctrl_c_waits_for_the_step_saves_and_then_stops(net, digits, unbroken, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    reference, _ = unbroken(PLAN)

    def press(model, step, total):
        if step == 5:
            ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        fit(net(), digits, PLAN, Context(checkpoints=tmp_path), Hooks(on_step=press))
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = net()
    history = fit(resumed, digits, PLAN, Context(checkpoints=tmp_path))
    assert history.resumed_at == 5
    assert same(resumed, reference)


def test_a_second_ctrl_c_breaks_off_at_once(net, digits, tmp_path):
    def press_twice(model, step, total):
        ctrl_c()
        ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        fit(net(), digits, PLAN, Context(checkpoints=tmp_path), Hooks(on_step=press_twice))
    assert not (tmp_path / FILE).exists()


def test_a_finished_run_returns_at_once_with_the_same_weights(net, digits, tmp_path):
    first = net()
    done = fit(first, digits, PLAN, Context(checkpoints=tmp_path))

    def never(model, inputs, batch):
        raise AssertionError("trained again")

    again = net()
    history = fit(again, digits, PLAN, Context(checkpoints=tmp_path), Hooks(loss=never))
    assert same(first, again)
    assert history.epochs == done.epochs
    assert history.resumed_at == history.steps == done.steps
    assert not again.training


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"plan": PLAN.but(epochs=1, lr=0.01)}, "plan"),
        ({"seed": 9}, "seed"),
        ({"start": 7}, "starting weights"),
        ({"hooks": Hooks(key="distill")}, "hooks"),
    ],
)
def test_the_checkpoint_of_another_run_is_not_continued(net, digits, tmp_path, change, named):
    plan = PLAN.but(epochs=1)
    fit(net(), digits, plan, Context(checkpoints=tmp_path))
    says = Says()
    context = Context(seed=change.get("seed", 0), checkpoints=tmp_path, progress=says)
    model = net(change.get("start", 0))
    history = fit(model, digits, change.get("plan", plan), context, change.get("hooks"))
    assert history.resumed_at is None
    assert says.said == [
        f"the checkpoint {tmp_path / FILE} has another {named}; starting anew",
    ]


@pytest.mark.parametrize("keep", [0, 20, -7])
def test_a_truncated_checkpoint_is_said_and_replaced(net, digits, tmp_path, keep):
    plan = PLAN.but(epochs=1)
    fit(net(), digits, plan, Context(checkpoints=tmp_path))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:keep])
    says = Says()
    history = fit(net(), digits, plan, Context(checkpoints=tmp_path, progress=says))
    assert history.resumed_at is None
    assert "can't be read" in says.said[0]
    assert fit(net(), digits, plan, Context(checkpoints=tmp_path)).resumed_at == history.steps


def test_divergence_keeps_the_last_good_checkpoint(net, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(_loop, "SAVE_EVERY_SECONDS", 0.0)

    def spoil(model, step, total):
        if step == 4:
            with torch.no_grad():
                model[5].bias.fill_(float("inf"))

    with pytest.raises(CheckFailed, match="the last good checkpoint stays"):
        fit(net(), digits, PLAN, Context(checkpoints=tmp_path), Hooks(on_step=spoil))
    assert fit(net(), digits, PLAN, Context(checkpoints=tmp_path)).resumed_at == 3


def test_a_folder_that_cannot_be_is_refused_before_training(net, digits, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    never = Hooks(on_step=lambda *_: pytest.fail("trained"))
    with pytest.raises(InputError, match=r"`checkpoints` expects a folder, but .*file is a file"):
        fit(net(), digits, PLAN, Context(checkpoints=file), never)
    with pytest.raises(StorageError, match="choose a folder that you may write"):
        fit(net(), digits, PLAN, Context(checkpoints=file / "below"), never)


def test_tied_weights_stay_tied_and_nothing_else_is_left_in_the_folder(plain_net, digits, tmp_path):
    def tied():
        model = plain_net()
        model[3].bias = torch.nn.Parameter(torch.zeros(10))
        model.append(torch.nn.Linear(10, 10))
        model.append(torch.nn.Linear(10, 10))
        model[5].weight = model[4].weight
        return model

    first, again = tied(), tied()
    fit(first, digits, PLAN, Context(checkpoints=tmp_path))
    fit(again, digits, PLAN, Context(checkpoints=tmp_path))
    assert same(first, again)
    assert again[5].weight is again[4].weight
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_checkpoint_is_plain_safetensors_with_a_json_header(net, digits, tmp_path):
    fit(net(), digits, PLAN.but(epochs=1), Context(checkpoints=tmp_path))
    with safetensors.safe_open(tmp_path / FILE, framework="numpy") as file:
        header = json.loads(file.metadata()["fettle"])
        names = set(file.keys())
    assert {"model.0.weight", "model.1.running_mean", "optimizer.0.momentum_buffer"} <= names
    assert header["place"]["epoch"] == 1
    assert header["key"]["training data"] == digits.fingerprint("train")


def test_an_exported_graph_trains_and_resumes_too(net, digits, tmp_path):
    def graph():
        (inputs,) = digits.example_inputs(4).values()
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        example = (torch.from_numpy(inputs),)
        return torch.export.export(net(), example, dynamic_shapes=shapes).module()

    unbroken, broken, resumed = graph(), graph(), graph()
    fit(unbroken, digits, PLAN, hooks=Hooks(set_mode=keep_mode))
    hooks = Hooks(set_mode=keep_mode, on_epoch=stop_after_epoch(1).on_epoch)
    with pytest.raises(StopError):
        fit(broken, digits, PLAN, Context(checkpoints=tmp_path), hooks)
    context = Context(checkpoints=tmp_path)
    history = fit(resumed, digits, PLAN, context, Hooks(set_mode=keep_mode))
    assert history.resumed_at is not None
    assert same(resumed, unbroken)
    assert history.epochs[-1].loss < history.epochs[0].loss


class Versioned(torch.nn.Module):
    """Does what torchao's observers do: resizes its range, and mistrusts unversioned files."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.register_buffer("high", torch.tensor([]))
        self.register_buffer("eps", torch.tensor([0.25]))

    def forward(self, x):
        self.high.resize_(10).copy_(x.detach().amax(0))
        return x + self.eps

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version", 0) < 2:
            state[prefix + "eps"] = torch.tensor([99.0])
        self.high.resize_(state[prefix + "high"].shape)
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_buffers_that_grow_and_versions_survive(plain_net, digits, tmp_path):
    first, again = plain_net().append(Versioned()), plain_net().append(Versioned())
    fit(first, digits, PLAN, Context(checkpoints=tmp_path))
    assert fit(again, digits, PLAN, Context(checkpoints=tmp_path)).resumed_at is not None
    assert first[4].high.shape == (10,)
    assert same(first, again)
