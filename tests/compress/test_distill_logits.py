import pytest
import torch
from torch import nn

from fettle import models
from fettle.core.context import Context
from fettle.core.errors import UnknownName
from fettle.core.shelf import TECHNIQUES
from fettle.train import accuracy


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def distilled(task, model, teacher=None, **knobs):
    technique = TECHNIQUES.make("distill.logits", **{"epochs": 6, "batch_size": 16, **knobs})
    return technique.within(Context(teacher=teacher))(model, task)


class Stubborn(nn.Module):
    """A teacher that always says class 2."""

    def forward(self, x):
        return torch.tensor([0.0, 0.0, 9.0, 0.0]).expand(len(x), 4)


def test_a_student_follows_its_teacher_and_not_the_labels(tiny):
    student = distilled(tiny, net(), Stubborn(), alpha=1.0, temperature=1.0)
    x = torch.from_numpy(tiny.example_inputs(8)["input"])
    assert set(student(x).argmax(1).tolist()) == {2}


def test_with_alpha_zero_the_labels_decide(tiny):
    student = distilled(tiny, net(), Stubborn(), alpha=0.0)
    assert accuracy(student, tiny, "select") > 0.9


def test_without_a_teacher_the_model_teaches_itself(tiny):
    model = net()
    student = distilled(tiny, model, alpha=1.0)
    x = torch.from_numpy(tiny.example_inputs(8)["input"])
    torch.testing.assert_close(student(x), model(x), rtol=0, atol=1e-3)


def test_a_named_student_is_trained_from_scratch(tiny):
    student = distilled(tiny, net(), student="cifar:resnet8x0.5", epochs=1)
    assert type(student).__name__ == "CifarResNet"
    assert student.linear.out_features == 4
    again = distilled(tiny, net(), student="cifar:resnet8x0.5", epochs=1)
    fresh = models.load("cifar:resnet8x0.5", signature=tiny.signature)
    assert torch.equal(student.conv1.weight, again.conv1.weight)
    assert not torch.equal(student.conv1.weight, fresh.conv1.weight)


def test_an_unknown_student_is_named(tiny):
    with pytest.raises(UnknownName, match="resnet9"):
        distilled(tiny, net(), student="cifar:resnet9")
