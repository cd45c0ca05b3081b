"""Learned step sizes against the paper (Esser et al. 2020, arXiv 1902.08153), in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torchao.quantization.pt2e import MovingAverageMinMaxObserver

from fettle.compress.quantize._learned import (
    SCALE_LR,
    KeepPositive,
    LearnedScale,
    learn_scales,
    with_scales,
)

QN, QP = 128, 127


def quantizer(scale=0.037, smallest=1e-10):
    module = LearnedScale(
        smallest,
        observer=MovingAverageMinMaxObserver,
        dtype=torch.int8,
        quant_min=-QN,
        quant_max=QP,
        qscheme=torch.per_tensor_symmetric,
    )
    module(torch.ones(1))
    module.learn()
    module.scale.data.fill_(scale)
    return module


def values(scale):
    """Inside, outside on both sides, on ties, and at zero, all exact for a power of two.

    None within half a step beyond the last one: there the paper clips, torch still rounds.
    """
    inside = np.random.default_rng(0).uniform(-127, 126.9, 400)
    steps = [0, 0.5, -0.5, 1.5, 2.5, -3.5, 126.5, -127.6, 130, -140, 1e4, -1e4]
    return torch.tensor(np.concatenate([inside, steps]) * scale, dtype=torch.float32)


def paper(x, scale):
    """x̂, ∂x̂/∂s and ∂x̂/∂x as equations 1 to 5 write them, in float64."""
    v = x.detach().double().numpy() / float(np.float32(scale))
    rounded = np.clip(np.rint(v), -QN, QP)
    by_scale = np.where(v <= -QN, -QN, np.where(v >= QP, QP, np.rint(v) - v))
    by_input = ((v > -QN) & (v < QP)).astype(float)
    return rounded * float(np.float32(scale)), by_scale, by_input


@pytest.mark.parametrize("scale", [2**-10, 2**-5, 2.0])
def test_forward_and_gradients_are_the_papers(scale):
    module, x = quantizer(scale), values(scale).requires_grad_()
    upstream = torch.linspace(-1, 1, len(x))
    out = module(x)
    out.backward(upstream)
    expected, by_scale, by_input = paper(x, scale)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), upstream.numpy() * by_input, rtol=1e-6)
    whole = (upstream.double().numpy() * by_scale).sum()
    assert module.scale.grad.item() == pytest.approx(whole, rel=1e-4)


def test_the_scales_gradient_holds_element_by_element():
    scale = 0.5
    for v in (0.3, 0.7, -1.2, 3.5, 90.25, 200.0, -300.0):
        module = quantizer(scale)
        module(torch.tensor([v * scale])).sum().backward()
        _, by_scale, _ = paper(torch.tensor([v * scale]), scale)
        assert module.scale.grad.item() == pytest.approx(by_scale[0], abs=1e-5)


def test_it_learns_the_scale_with_the_least_error():
    """Gradient descent on the squared error ends at the best scale that a search finds."""
    x = torch.tensor(np.random.default_rng(1).normal(0, 1, 4000), dtype=torch.float32)
    candidates = np.linspace(0.01, 0.06, 501)
    errors = [((paper(x, s)[0] - x.double().numpy()) ** 2).mean() for s in candidates]
    module = quantizer(0.05)
    optimizer = torch.optim.Adam([module.scale], lr=2e-4)
    for _ in range(300):
        optimizer.zero_grad()
        ((module(x) - x) ** 2).mean().backward()
        optimizer.step()
    found = ((paper(x, module.scale.item())[0] - x.double().numpy()) ** 2).mean()
    assert found < 1.1 * min(errors)
    assert found < 0.5 * ((paper(x, 0.05)[0] - x.double().numpy()) ** 2).mean()


def test_zero_stays_zero_and_the_zero_point_is_not_trained():
    module = quantizer()
    assert not module.zero_point.requires_grad
    assert module.scale.requires_grad
    assert module(torch.zeros(5)).tolist() == [0] * 5


def test_observation_ends_when_learning_begins():
    module = quantizer(0.037)
    module(1000 * torch.ones(3))
    assert module.scale.item() == pytest.approx(0.037)


def test_scales_are_a_group_of_their_own_that_does_not_decay():
    model = nn.Sequential(nn.Linear(3, 2), quantizer())
    learn_scales(model)
    weights, others, scales = with_scales(model)
    assert [p.shape for p in weights["params"]] == [(2, 3)]
    assert [p.shape for p in others["params"]] == [(2,)]
    assert scales["params"] == [model[1].scale]
    assert (others["weight_decay"], scales["weight_decay"]) == (0, 0)
    assert (scales["lr"], "lr" in weights) == (SCALE_LR, False)


def test_no_scale_falls_to_zero():
    model = nn.Sequential(quantizer(-0.5, smallest=1e-4))
    KeepPositive()(model, 1, 2)
    assert model[0].scale.item() == pytest.approx(1e-4)
