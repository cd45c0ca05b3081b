"""Two processes with gloo against one process with twice the batch."""

import multiprocessing as mp
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fettle.core.context import Context
from fettle.core.errors import InputError, MissingError
from fettle.train import FitPlan, Hooks, fit

ONE = FitPlan(accelerator="cpu", epochs=2, batch_size=64, clip=1.0, label_smoothing=0.1)
TWO = ONE.but(devices=2, batch_size=32)


@pytest.fixture
def hooks(monkeypatch):
    """The hooks of a module that fresh interpreters find too."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import ddp_hooks

    return ddp_hooks


def close(a, b):
    for mine, theirs in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_two_processes_equal_one_with_twice_the_batch(plain_net, digits, hooks, tmp_path):
    alone, together = plain_net(), plain_net()
    expected = fit(alone, digits, ONE)
    history = fit(together, digits, TWO, hooks=Hooks(on_epoch=hooks.SaveWeights(tmp_path)))
    close(together, alone)
    assert history.steps == expected.steps
    for mine, theirs in zip(history.epochs, expected.epochs, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert mine.metric == pytest.approx(theirs.metric, abs=0.01)
    ranks = [load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2)]
    for name, tensor in together.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        assert torch.equal(ranks[0][name], tensor)
    assert not together.training
    assert "MASTER_PORT" not in os.environ


@pytest.mark.slow
def test_accumulation_in_two_processes(plain_net, digits):
    alone, together = plain_net(), plain_net()
    fit(alone, digits, ONE.but(batch_size=200))
    fit(together, digits, TWO.but(batch_size=25, accumulate=4))
    close(together, alone)


@pytest.mark.slow
def test_ctrl_c_in_the_parent_leaves_a_checkpoint_to_continue_from(
    plain_net, digits, hooks, tmp_path
):
    unbroken, resumed = plain_net(), plain_net()
    fit(unbroken, digits, TWO)
    context, others = Context(checkpoints=tmp_path), set(mp.active_children())
    with pytest.raises(KeyboardInterrupt):
        fit(plain_net(), digits, TWO, context, Hooks(on_step=hooks.interrupt_parent))
    assert not set(mp.active_children()) - others
    history = fit(resumed, digits, TWO, context)
    assert history.resumed_at is not None
    assert 3 <= history.resumed_at < history.steps
    close(resumed, unbroken)


@pytest.mark.slow
def test_an_error_in_a_worker_arrives_as_it_is(plain_net, digits, hooks):
    model = plain_net()
    with pytest.raises(MissingError, match="a thing is not here; to mend it") as caught:
        fit(model, digits, TWO, hooks=Hooks(on_step=hooks.fail))
    assert caught.value.mend == "pip install thing"
    assert caught.value.exit_code == 3


@pytest.mark.slow
def test_a_foreign_error_in_a_worker_keeps_its_traceback(plain_net, digits, hooks):
    with pytest.raises(Exception, match="ZeroDivisionError: not ours"):
        fit(plain_net(), digits, TWO, hooks=Hooks(on_step=hooks.fail_foreign))


def test_what_cannot_be_sent_is_named(plain_net, digits):
    class Local(nn.Linear):
        pass

    with pytest.raises(InputError, match=r"the model can't be sent.*set `devices` to 1"):
        fit(Local(2, 2), digits, TWO)
    with pytest.raises(InputError, match="the hooks can't be sent"):
        fit(plain_net(), digits, TWO, hooks=Hooks(on_step=lambda *_: None))


def test_more_gpus_than_there_are_is_said(plain_net, digits):
    there = torch.cuda.device_count()
    with pytest.raises(MissingError, match=f"`devices={there + 1}` on cuda, but {there} GPUs"):
        fit(plain_net(), digits, ONE.but(accelerator="cuda", devices=there + 1))
