import numpy as np
import pytest
import torch
from torch import nn

from fettle import models
from fettle.compress._teacher import Ensemble
from fettle.compress.distill._stages import captured, channels_first, pairs_of
from fettle.compress.distill.features import (
    FeatureLoss,
    Learner,
    attention_loss,
    hint_loss,
    same_size,
)
from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.models._torchvision import import_torchvision
from fettle.testing import Recorder, TinyTask
from fettle.train import FitPlan, Hooks, fit

RNG = np.random.default_rng(0)
X = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)
STUDENT, TEACHER = "cifar:resnet8x0.5", "cifar:resnet8"


def load(name, task, seed=0):
    return models.load(name, signature=task.signature, seed=seed)


def distilled(task, teacher=None, recorder=None, checkpoints=None, **knobs):
    technique = TECHNIQUES.make("distill.features", **{"epochs": 1, "batch_size": 16, **knobs})
    context = Context(teacher=teacher, progress=recorder or Recorder(), checkpoints=checkpoints)
    return technique.within(context)(load(STUDENT, task), task)


class Blocks(nn.Module):
    """A transformer: tokens keep their number, blocks stand in a list."""

    def __init__(self, depth, width):
        super().__init__()
        torch.manual_seed(depth)
        self.patch = nn.Conv2d(1, width, 2, 2)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, width, 0.0, batch_first=True) for _ in range(depth)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


@pytest.mark.parametrize("sizes", [(5, 5), (2, 3), (7,)])
def test_the_hint_is_the_relative_squared_error(sizes):
    s, t = RNG.normal(size=(2, 4, 6, *sizes))
    found = hint_loss(torch.tensor(s), torch.tensor(t)).item()
    assert found == pytest.approx(((s - t) ** 2).sum() / (s**2 + t**2).sum(), rel=1e-12)
    assert hint_loss(torch.zeros(3), torch.ones(3)) == 1
    assert hint_loss(torch.ones(3), torch.zeros(3)) == 1
    assert hint_loss(torch.zeros(3), torch.zeros(3)) == 0


def test_the_hint_pulls_as_the_squared_error_does():
    student = torch.tensor([3.0, 1.0], requires_grad=True)
    hint_loss(student, torch.tensor([1.0, 1.0])).backward()
    assert student.grad.tolist() == pytest.approx([2 * (3 - 1) / 12, 0])


def test_attention_is_the_distance_of_maps_of_length_one():
    s, t = RNG.normal(size=(4, 6, 5, 5)), RNG.normal(size=(4, 3, 5, 5))
    maps = [(a**2).sum(1).reshape(4, -1) for a in (s, t)]
    maps = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps]
    expected = ((maps[0] - maps[1]) ** 2).sum(1).mean()
    assert attention_loss(torch.tensor(s), torch.tensor(t)).item() == pytest.approx(expected)
    assert attention_loss(torch.tensor(7 * t), torch.tensor(t)).item() == pytest.approx(0)


def test_sizes_are_averaged_down():
    a, b = same_size(torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 2, 2, 8))
    assert a.shape == (1, 1, 2, 4)
    assert b.shape == (1, 2, 2, 4)
    assert a[0, 0, 0].tolist() == [2, 3, 4, 5]


def test_stages_of_equal_resolution_are_paired(tiny):
    pairs = pairs_of(load(STUDENT, tiny), load(TEACHER, tiny), X)
    assert [(p.student, p.teacher, p.widths) for p in pairs] == [
        ("layer1", "layer1", (8, 16)), ("layer2", "layer2", (16, 32)),
        ("layer3", "layer3", (32, 64)),
    ]  # fmt: skip


@pytest.mark.slow
def test_real_nets_are_paired_by_their_stages():
    task = TinyTask((3, 64, 64), examples=40)
    nets = [models.load(f"torchvision:resnet{n}", signature=task.signature) for n in (18, 50)]
    pairs = pairs_of(*nets, (torch.zeros(2, 3, 64, 64),))
    assert [p.student for p in pairs] == [p.teacher for p in pairs]
    assert [p.student for p in pairs] == ["layer1", "layer2", "layer3", "layer4"]
    assert [p.widths[1] // p.widths[0] for p in pairs] == [4, 4, 4, 4]


def test_without_equal_resolutions_the_last_stages_are_paired(tiny):
    teacher = nn.Sequential(nn.Conv2d(1, 4, 6), nn.Flatten(), nn.Linear(36, 4))
    pairs = pairs_of(load(STUDENT, tiny), teacher, X)
    assert [(p.student, p.teacher, p.widths) for p in pairs] == [("layer3", "0", (32, 4))]
    student = distilled(tiny, teacher, kind="attention")
    assert all(torch.isfinite(p).all() for p in student.parameters())


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ((2, 6), [(0, 2), (1, 5)]),
        ((4, 12), [(0, 2), (1, 5), (2, 8), (3, 11)]),
        ((3, 3), [(0, 0), (1, 1), (2, 2)]),
    ],
)
def test_blocks_are_paired_by_depth(depths, expected):
    pairs = pairs_of(Blocks(depths[0], 8), Blocks(depths[1], 16), X)
    assert [(p.student, p.teacher) for p in pairs] == [
        (f"blocks.{s}", f"blocks.{t}") for s, t in expected
    ]
    assert {p.widths for p in pairs} == {(8, 16)}


def test_tokens_are_turned():
    assert channels_first(torch.zeros(2, 16, 8)).shape == (2, 8, 16)


def test_nets_that_cannot_be_paired_are_refused(tiny):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ModelError, match="the student has no submodule"):
        pairs_of(plain, load(TEACHER, tiny), X)
    with pytest.raises(ModelError, match="one kind"):
        pairs_of(load(STUDENT, tiny), Blocks(2, 8), X)


@pytest.mark.parametrize("kind", ["hint", "attention"])
def test_a_student_comes_to_see_what_its_teacher_sees(kind):
    task = TinyTask(examples=240)
    teacher = load(TEACHER, task, seed=5)
    fit(teacher, task, FitPlan(epochs=3, batch_size=16), validate=False)

    def distance(weight):
        knobs = {"kind": kind, "weight": weight, "epochs": 6, "lr": 0.02}
        student = distilled(task, teacher, **knobs)
        pairs = pairs_of(student, teacher, X)
        (batch,) = task.batches("select", 200)
        how = TECHNIQUES.make("distill.features", kind="attention", weight=1.0, alpha=0.0)
        x = (torch.from_numpy(batch.inputs["input"]),)
        learner = Learner(student, pairs, adapt=False)
        learner.train()
        student.eval()
        loss = FeatureLoss(teacher, task, how, pairs)(learner, x, batch)
        return (loss - task.loss(student(*x), batch)).item()

    assert distance(30.0) < 0.8 * distance(0.0)


def test_the_student_comes_back_plain_and_what_is_paired_is_told(tiny):
    recorder = Recorder()
    student = distilled(tiny, load(TEACHER, tiny), recorder)
    fresh = load(STUDENT, tiny)
    assert student.state_dict().keys() == fresh.state_dict().keys()
    assert not any(m._forward_hooks for m in student.modules())
    assert "features: layer1 ← layer1, layer2 ← layer2, layer3 ← layer3" in recorder.lines
    assert models.origin_of(student) == models.origin_of(fresh)


def test_adapters_are_trained(tiny):
    teacher, student = load(TEACHER, tiny), load(STUDENT, tiny)
    pairs = pairs_of(student, teacher, X)
    learner = Learner(student, pairs, adapt=True)
    before = [p.detach().clone() for p in learner.adapters.parameters()]
    how = TECHNIQUES.make("distill.features")
    hooks = Hooks(loss=FeatureLoss(teacher, tiny, how, pairs))
    fit(learner, tiny, FitPlan(epochs=1, batch_size=16), hooks=hooks)
    assert len(before) == 6
    assert not any(map(torch.equal, before, learner.adapters.parameters()))


def test_a_killed_training_goes_on_with_its_adapters(tiny, tmp_path, monkeypatch):
    teacher = load(TEACHER, tiny)
    through = distilled(tiny, teacher, epochs=3)
    call, calls = FeatureLoss.__call__, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return call(self, *args)

    monkeypatch.setattr(FeatureLoss, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        distilled(tiny, teacher, checkpoints=tmp_path, epochs=3)
    recorder = Recorder()
    again = distilled(tiny, teacher, recorder, tmp_path, epochs=3)
    assert any("continuing at step" in line for line in recorder.lines)
    for name, tensor in through.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_of_several_teachers_the_first_shows_its_features(tiny):
    teachers = Ensemble([load(TEACHER, tiny), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))])
    student = distilled(tiny, teachers)
    assert all(torch.isfinite(p).all() for p in student.parameters())


def test_the_zeros_of_a_pruned_student_stay(tiny):
    pruned = TECHNIQUES.make("prune.magnitude", sparsity=0.5, epochs=0)(load(STUDENT, tiny), tiny)
    technique = TECHNIQUES.make("distill.features", epochs=1, batch_size=16)
    student = technique.within(Context(teacher=load(TEACHER, tiny)))(pruned, tiny)
    for before, after in zip(pruned.parameters(), student.parameters(), strict=True):
        assert torch.equal(before == 0, after == 0) or before.ndim == 1


def timm_vit(width, depth):
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=width, depth=depth,
        num_heads=2, in_chans=3, num_classes=4,
    )  # fmt: skip


def torchvision_vit(width, depth):
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 8, depth, 2, width, 2 * width, num_classes=4)


@pytest.mark.parametrize("make", [timm_vit, torchvision_vit])
def test_vision_transformers_learn_tokens_of_a_teacher_of_the_other_kind(make):
    import_torchvision()
    torch.manual_seed(0)
    task = TinyTask(image=(3, 16, 16))
    other = timm_vit if make is torchvision_vit else torchvision_vit
    student, teacher = make(8, 2).eval(), other(16, 4).eval()
    inputs = torch.from_numpy(task.example_inputs(32)["input"])
    pairs = pairs_of(student, teacher, (inputs,))
    layers = [
        net.encoder.layers if hasattr(net, "encoder") else net.blocks for net in (student, teacher)
    ]
    for pair, at in zip(pairs, (1, 2), strict=True):  # after half of each net, and after all
        assert student.get_submodule(pair.student) is layers[0][at - 1]
        assert teacher.get_submodule(pair.teacher) is layers[1][2 * at - 1]
        assert pair.widths == (8, 16)
    left = []
    for weight in (0.0, 10.0):  # the first is the control, which learns from labels alone
        knobs = {"epochs": 20, "lr": 1e-2, "alpha": 0.0, "optimizer": "adamw", "weight": weight}
        recipe = TECHNIQUES.make("distill.features", **knobs)
        found = recipe.within(Context(teacher=teacher))(student, task)
        left.append(loss(found, teacher, pairs, inputs))
    assert left[1] < 0.9 * left[0]


def loss(student, teacher, pairs, inputs):
    """Return how much of the teacher's tokens a linear map of the student's leaves unexplained."""
    left = []
    with torch.no_grad():
        for pair in pairs:
            shown = []
            for net, path in ((student, pair.student), (teacher, pair.teacher)):
                with captured(net.eval(), [path]) as outputs:
                    net(inputs)
                shown.append(outputs[path].flatten(0, 1).double())
            solution = torch.linalg.lstsq(shown[0], shown[1]).solution
            error = (shown[0] @ solution - shown[1]).square().sum()
            left.append(error / shown[1].square().sum())
    return sum(left)
