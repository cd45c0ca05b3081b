import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from fettle.compress._distillation import (
    Distillation,
    DistillingLoss,
    decoupled_losses,
    soft_loss,
)

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
    assert (teacher.calls > 0) == (alpha > 0)


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


def parts(student, teacher, targets, temperature):
    """TCKD, NCKD and 1 − p_target by example, in float64, as Zhao et al. write them (eq. 1 … 7)."""
    rows = np.arange(len(targets))
    p, q = (np.exp(log_softmax(z / temperature, axis=1)) for z in (teacher, student))
    binary = [np.stack([d[rows, targets], 1 - d[rows, targets]], axis=1) for d in (p, q)]
    rest = [np.array([np.delete(row, t) / (1 - row[t]) for row, t in zip(d, targets, strict=True)])
            for d in (p, q)]  # fmt: skip
    target, others = ((a * np.log(a / b)).sum(axis=1) for a, b in (binary, rest))
    return target, others, 1 - p[rows, targets]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_decoupled_losses_are_the_formulas(temperature):
    found = decoupled_losses(
        torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor(TARGETS), temperature
    )
    target, others, _ = parts(STUDENT, TEACHER, TARGETS, temperature)
    expected = [temperature**2 * part.mean() for part in (target, others)]
    assert [f.item() for f in found] == pytest.approx(expected, rel=1e-9)


def test_the_reference_adds_up_to_the_whole():
    target, others, unsure = parts(STUDENT, TEACHER, TARGETS, 3.0)
    assert 9 * (target + unsure * others).mean() == pytest.approx(soft(STUDENT, TEACHER, 3.0))


def test_a_single_example_adds_up_to_the_plain_loss():
    for row in range(len(TARGETS)):
        one = [torch.tensor(z[row : row + 1]) for z in (STUDENT, TEACHER)]
        target, others = decoupled_losses(*one, torch.tensor(TARGETS[row : row + 1]), 2.0)
        unsure = 1 - torch.softmax(one[1] / 2, dim=1)[0, TARGETS[row]]
        whole = soft_loss(*one, Distillation(1.0, 2.0))
        assert (target + unsure * others).item() == pytest.approx(whole.item(), rel=1e-9)


def test_of_two_classes_there_are_no_others():
    logits = torch.tensor(STUDENT[:, :2]), torch.tensor(TEACHER[:, :2])
    target, others = decoupled_losses(*logits, torch.tensor(TARGETS % 2), 1.0)
    assert others.item() == 0
    assert target.item() == pytest.approx(soft(STUDENT[:, :2], TEACHER[:, :2], 1.0))


def test_a_sure_teacher_gives_finite_losses_and_gradients():
    student = torch.tensor(STUDENT, dtype=torch.float32, requires_grad=True)
    sure = torch.zeros(6, 10)
    sure[range(6), TARGETS] = 200.0
    target, others = decoupled_losses(student, sure, torch.tensor(TARGETS), 1.0)
    (target + 8 * others).backward()
    assert torch.isfinite(student.grad).all()
    assert torch.isfinite(target + others)
