import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from fettle import models
from fettle.compress._teacher import Ensemble, Teacher, frozen
from fettle.core.shelf import TECHNIQUES
from fettle.testing import TinyTask


@pytest.fixture
def as_it_is(monkeypatch):
    """The teacher isn't made faster to ask: what is asked is what was given, and counts."""
    monkeypatch.setattr("fettle.compress._teacher.folded", lambda module, inputs: None)


class Counted(nn.Module):
    """A convolutional teacher that counts its batches."""

    def __init__(self, task):
        super().__init__()
        self.model = models.load("cifar:resnet8x0.5", signature=task.signature, seed=3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.model(x)


class Placed(nn.Module):
    """A teacher whose answer depends on an example's place in the batch."""

    def forward(self, x):
        return torch.arange(len(x))[:, None] * torch.ones(4)


class Unknown(TinyTask):
    """A task that doesn't say how it augments."""

    augment = "shift"


def answers(teacher, task, epoch, size=16):
    for batch in task.epoch(0, epoch, size):
        inputs = (torch.tensor(batch.inputs["input"]),)
        yield teacher(inputs, batch), teacher.module(*inputs)


def test_answers_that_are_kept_are_the_same_bit_for_bit(tiny, as_it_is):
    module = Counted(tiny)
    teacher = Teacher(module, tiny)
    for epoch in (0, 1):
        for found, expected in answers(teacher, tiny, epoch):
            assert torch.equal(found, expected)
            assert not found.requires_grad
    batches = -(-tiny.size("train") // 16)
    asked_here = 2 * tiny.steps(16)
    assert module.calls == batches + 1 + asked_here


def test_what_is_augmented_is_asked_anew(as_it_is):
    task = Unknown()
    module = Counted(task)
    teacher = Teacher(module, task)
    assert all(torch.equal(*pair) for pair in answers(teacher, task, 0))
    assert module.calls == 2 * task.steps(16)


def test_the_next_student_finds_the_answers_of_the_one_before(as_it_is):
    task, given = Unknown(), Counted(Unknown())
    for _ in range(2):
        teacher = Teacher(frozen(given), task)
        for epoch in (0, 1):
            assert all(torch.equal(*pair) for pair in answers(teacher, task, epoch))
    direct = 4 * task.steps(16)  # the questions of this test itself
    assert frozen(given).calls == direct + 2 * task.steps(16)
    assert given.calls == 0


def test_a_teacher_that_learned_something_is_asked_anew(tiny, as_it_is):
    given = Counted(tiny)
    before = frozen(given)
    assert frozen(given) is before
    with torch.no_grad():
        next(given.parameters()).add_(1)
    after = frozen(given)
    assert after is not before
    assert not any(p.requires_grad for p in after.parameters())
    assert all(p.requires_grad for p in given.parameters())


def test_answers_to_batches_end_where_memory_does(monkeypatch, as_it_is):
    task = Unknown()
    monkeypatch.setattr("fettle.compress._teacher._MOST_BYTES", 3 * 16 * 4 * 4)
    teacher = Teacher(Counted(task), task)
    assert all(torch.equal(*pair) for pair in answers(teacher, task, 0))
    assert len(teacher.memory.batches) == min(3, task.steps(16))


def test_an_answer_that_depends_on_its_place_is_not_kept(tiny, as_it_is):
    for found, expected in answers(Teacher(Placed(), tiny), tiny, 1):
        assert torch.equal(found, expected)


def test_examples_that_were_never_seen_are_asked(tiny, as_it_is):
    teacher = Teacher(Counted(tiny), tiny)
    list(answers(teacher, tiny, 0))
    batch = next(iter(tiny.batches("select", 5)))
    x = torch.tensor(batch.inputs["input"])
    assert torch.equal(teacher((x,), batch), teacher.module(x))


def test_a_student_is_the_same_with_and_without_memory(tiny, monkeypatch):
    def learn():
        technique = TECHNIQUES.make("distill.logits", epochs=2, batch_size=16)
        return technique(models.load("cifar:resnet8x0.5", signature=tiny.signature), tiny)

    remembered = learn()
    monkeypatch.setattr(Teacher, "_all_answers", lambda *_: {})
    for name, tensor in learn().state_dict().items():
        assert torch.equal(tensor, remembered.state_dict()[name]), name


def test_a_large_split_is_not_kept(tiny, monkeypatch, as_it_is):
    monkeypatch.setattr("fettle.compress._teacher._MOST_BYTES", 4 * 4 * tiny.size("train") - 1)
    teacher = Teacher(Counted(tiny), tiny)
    list(answers(teacher, tiny, 0))
    assert teacher.memory.examples == {}


def linear(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double().requires_grad_(False)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_several_teachers_say_their_mean_probability(k):
    x = torch.randn(5, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    teachers = [linear(seed) for seed in range(k)]
    found = Ensemble(copy.deepcopy(teachers))(x)
    expected = np.mean([softmax(t(x).numpy(), axis=1) for t in teachers], axis=0)
    np.testing.assert_allclose(softmax(found.numpy(), axis=1), expected, rtol=1e-6)
    np.testing.assert_allclose(np.exp(found.numpy()), expected, rtol=1e-6)


def test_a_teacher_with_larger_logits_has_no_larger_say():
    class Says(nn.Module):
        def __init__(self, *logits):
            super().__init__()
            self.logits = torch.tensor([logits])

        def forward(self, x):
            return self.logits

    loud, others = Says(1000.0, 0.0), [Says(0.0, 9.0), Says(0.0, 9.0)]
    assert Ensemble([loud, *others])(None).argmax().item() == 1
