import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from fettle.compress._distillation import Distillation, DistillingLoss, soft_loss

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(0, 3, (2, 6, 10))
TARGETS = RNG.integers(0, 4, 6)


def soft(student, teacher, temperature, standardize=False):
    """T² · KL(teacher ‖ student), in float64, as the papers write it."""
    if standardize:
        student, teacher = ((z - z.mean(1, keepdims=True)) / z.std(1, ddof=1, keepdims=True)
                            for z in (student, teacher))  # fmt: skip
    p = log_softmax(teacher / temperature, axis=1)
    q = log_softmax(student / temperature, axis=1)
    return temperature**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()


def hard(student, targets, smoothing=0.0):
    """Cross-entropy with label smoothing (Szegedy et al. 2016), in float64."""
    log_p = log_softmax(student, axis=1)
    true = log_p[np.arange(len(targets)), targets]
    return (-(1 - smoothing) * true - smoothing * log_p.mean(axis=1)).mean()


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.0, 20.0])
def test_soft_loss_is_the_formula(temperature, standardize):
    how = Distillation(1.0, temperature, standardize)
    found = soft_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), how)
    expected = soft(STUDENT, TEACHER, temperature, standardize)
    assert found.item() == pytest.approx(expected, rel=1e-5)  # the deviation has 1e-7 added


def test_a_student_that_equals_its_teacher_has_no_soft_loss():
    same = torch.tensor(TEACHER)
    assert soft_loss(same, same, Distillation(1.0, 3.0)).item() == pytest.approx(0, abs=1e-12)


def test_standardised_logits_ignore_shift_and_scale():
    how = Distillation(1.0, 2.0, standardize=True)
    teacher = torch.tensor(TEACHER)
    assert soft_loss(5 * teacher - 3, teacher, how).item() == pytest.approx(0, abs=1e-9)


def test_the_gradient_does_not_depend_on_temperature_at_its_limit():
    """For high T the gradient tends to (z − v) / n² of centred logits (Hinton et al., eq. 4)."""
    student = torch.tensor(STUDENT, requires_grad=True)
    soft_loss(student, torch.tensor(TEACHER), Distillation(1.0, 10_000.0)).backward()
    centred = [z - z.mean(1, keepdims=True) for z in (STUDENT, TEACHER)]
    expected = (centred[0] - centred[1]) / 10 / len(STUDENT)
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-2, atol=1e-5)


class Table(nn.Module):
    """A model that answers with the same logits whatever comes in."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.logits


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_mixes_both_losses(tiny, alpha, smoothing):
    batch = next(iter(tiny.batches("train", 6)))
    logits = STUDENT[:, :4], TEACHER[:, :4]
    how = Distillation(alpha, 3.0, label_smoothing=smoothing)
    teacher = Table(logits[1])
    loss = DistillingLoss(teacher, tiny, how)(Table(logits[0]), (torch.zeros(1),), batch)
    expected = alpha * soft(*logits, 3.0) + (1 - alpha) * hard(logits[0], batch.targets, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert teacher.calls == (alpha > 0)


def test_the_teacher_learns_nothing(tiny):
    batch = next(iter(tiny.batches("train", 6)))
    teacher, student = Table(TEACHER[:, :4]), Table(STUDENT[:, :4])
    teacher.train()
    DistillingLoss(teacher, tiny, Distillation(0.5, 2.0))(
        student, (torch.zeros(1),), batch
    ).backward()
    assert teacher.logits.grad is None
    assert not teacher.training
    assert student.logits.grad.abs().sum() > 0
