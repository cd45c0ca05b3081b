import pytest
import torch
from torch import nn

from fettle.compress._distillation import decoupled_losses
from fettle.compress.distill.decoupled import DecoupledLoss
from fettle.core.context import Context
from fettle.core.shelf import TECHNIQUES
from fettle.train import accuracy


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def distilled(task, model, teacher=None, **knobs):
    technique = TECHNIQUES.make("distill.decoupled", **{"epochs": 6, "batch_size": 16, **knobs})
    return technique.within(Context(teacher=teacher))(model, task)


class Stubborn(nn.Module):
    """A teacher that always says class 2, and class 3 next."""

    def forward(self, x):
        return torch.tensor([0.0, 0.0, 9.0, 4.0]).expand(len(x), 4)


def test_the_loss_is_the_labels_and_both_weighed_parts(tiny):
    batch = next(iter(tiny.batches("train", 6)))
    inputs = (torch.from_numpy(batch.inputs["input"]),)
    technique = TECHNIQUES.make("distill.decoupled", target=2.0, others=5.0, temperature=3.0)
    model, teacher = net(), net(1)
    found = DecoupledLoss(teacher, tiny, technique)(model, inputs, batch)
    logits = model(*inputs), teacher(*inputs)
    parts = decoupled_losses(*logits, torch.tensor(batch.targets), 3.0)
    expected = tiny.loss(logits[0], batch) + 2 * parts[0] + 5 * parts[1]
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def true_class(task):
    """Inputs of class 1, which the teacher takes for class 2."""
    batch = next(iter(task.batches("select", 24)))
    return torch.from_numpy(batch.inputs["input"])[torch.tensor(batch.targets) == 1]


def test_a_student_doubts_what_its_teacher_doubts(tiny):
    x = true_class(tiny)
    sure, doubting = (
        distilled(tiny, net(), Stubborn(), target=t, others=0.0, lr=0.005)(x).softmax(1)[:, 1]
        for t in (0.0, 20.0)
    )
    assert sure.mean() > doubting.mean() + 0.2


def test_a_student_ranks_the_other_classes_as_its_teacher_does(tiny):
    x = true_class(tiny)
    plain, taught = (
        distilled(tiny, net(), Stubborn(), target=0.0, others=o, temperature=1.0, lr=0.005)(x)
        for o in (0.0, 20.0)
    )
    for other in (0, 3):
        ahead = [(logits[:, 2] - logits[:, other]).mean() for logits in (plain, taught)]
        assert ahead[1] > ahead[0] + 0.5


def test_with_no_weight_the_labels_decide(tiny):
    student = distilled(tiny, net(), Stubborn(), target=0.0, others=0.0)
    assert accuracy(student, tiny, "select") > 0.9


def test_the_zeros_of_a_pruned_student_stay(tiny):
    model = TECHNIQUES.make("prune.magnitude", sparsity=0.5, epochs=0)(net(), tiny)
    for name in ("distill.decoupled", "distill.logits"):
        student = TECHNIQUES.make(name, epochs=1, batch_size=16)(model, tiny)
        assert torch.equal(student[1].weight == 0, model[1].weight == 0)
        assert not torch.equal(student[1].weight, model[1].weight)
