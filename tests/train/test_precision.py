"""Mixed precision: computing in 16 bits, weights in 32, gradients that neither vanish nor burst."""

import json

import pytest
import safetensors
import torch
from torch.nn import functional as F

from fettle.core.context import Context
from fettle.core.errors import CheckFailed
from fettle.train import FitPlan, Hooks, accuracy, fit

CPU = FitPlan(accelerator="cpu", epochs=6, lr=0.1)
MIXED = [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)]


def scaled_loss(factor):
    def loss(model, inputs, batch):
        return F.cross_entropy(model(*inputs), torch.from_numpy(batch.targets)) * factor

    return loss


@pytest.mark.parametrize(("precision", "dtype"), MIXED)
def test_computes_in_16_bits_on_float32_master_weights(net, digits, precision, dtype):
    model, computed = net(), []
    model[5].register_forward_hook(
        lambda module, inputs, output: computed.append(output.dtype) if module.training else None
    )
    fit(model, digits, CPU.but(precision=precision, clip=1.0))
    assert set(computed) == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert accuracy(model, digits, "select") > 0.75


def test_full_precision_computes_in_32_bits(net, digits):
    model, computed = net(), set()
    model[5].register_forward_hook(lambda module, inputs, output: computed.add(output.dtype))
    fit(model, digits, CPU.but(epochs=1))
    assert computed == {torch.float32}


def test_loss_scaling_keeps_gradients_that_float16_would_flush_to_zero(plain_net, digits):
    # A millionth of the loss has gradients near 1e-9; float16 ends at 6e-8.
    hooks = Hooks(loss=scaled_loss(1e-6))
    moves = []
    for precision in ("32", "16-mixed"):
        model = plain_net()
        before = model[1].weight.detach().clone()
        plan = CPU.but(epochs=1, lr=100, weight_decay=0, precision=precision)
        fit(model, digits, plan, hooks=hooks, validate=False)
        moves.append((model[1].weight - before).detach())
    assert moves[0].norm() > 0
    assert (moves[1] - moves[0]).norm() / moves[0].norm() < 0.02


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_an_overflow_skips_the_step_and_the_lower_scale_is_resumed(
    plain_net, digits, tmp_path, clip
):
    plan = CPU.but(epochs=2, lr=1e-4, precision="16-mixed", clip=clip)
    hooks = Hooks(loss=scaled_loss(1e3))  # 65,536 × 1,000 is past float16's 65,504
    unbroken = plain_net()
    fit(unbroken, digits, plan, hooks=hooks)

    class StopError(Exception):
        pass

    def stop(model, record):
        if record.epoch == 1:
            raise StopError

    context = Context(checkpoints=tmp_path)
    with pytest.raises(StopError):
        fit(plain_net(), digits, plan, context, Hooks(loss=scaled_loss(1e3), on_epoch=stop))
    with safetensors.safe_open(tmp_path / "fit.safetensors", framework="pt") as file:
        scale = json.loads(file.metadata()["fettle"])["scale"]["scale"]
    assert 1 <= scale < 65_536
    resumed = plain_net()
    assert fit(resumed, digits, plan, context, hooks).resumed_at is not None
    for mine, theirs in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_steps_that_all_overflow_are_noticed(plain_net, digits):
    def loss(model, inputs, batch):
        return (model(*inputs) * 0).abs().sqrt().sum()  # zero, with a gradient that is no number

    plan = CPU.but(epochs=4, precision="16-mixed")
    with pytest.raises(CheckFailed, match=r"loss scale fell to .*`precision='bf16-mixed'`"):
        fit(plain_net(), digits, plan, hooks=Hooks(loss=loss))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_trains_on_the_gpu_and_brings_the_model_back(net, digits, precision):
    model = net()
    fit(model, digits, CPU.but(accelerator="cuda", precision=precision, clip=1.0))
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert accuracy(model, digits, "select") > 0.75


def test_weights_come_back_in_the_layout_that_they_had(net, digits):
    model = net(8)
    fit(model, digits, CPU.but(epochs=1, precision="bf16-mixed"))
    assert all(p.is_contiguous() for p in model.parameters())


@pytest.mark.parametrize("name", ["distill.logits", "distill.decoupled"])
def test_a_student_in_16_bits_is_taught_in_16_bits(net, digits, monkeypatch, name):
    from fettle.compress._teacher import Teacher
    from fettle.core.shelf import TECHNIQUES

    seen = set()
    answer = Teacher._computed

    def watched(self, inputs):
        with torch.autocast("cpu", enabled=False):
            found = answer(self, inputs)
        seen.add((self.half, found.dtype))
        return found

    monkeypatch.setattr(Teacher, "_computed", watched)
    TECHNIQUES.make(name, epochs=1, precision="bf16-mixed")(net(8), digits)
    assert seen == {(torch.bfloat16, torch.float32)}
