import copy

import numpy as np
import pytest
import torch
from torch import nn

from fettle import models
from fettle.compress.prune._groups import ChannelGraph
from fettle.compress.prune._proof import provable
from fettle.compress.prune.allocated import Parts, running, shares_in
from fettle.core.errors import KnobError, ModelError, UnknownName
from fettle.core.recipe import parse_step
from fettle.core.shelf import TECHNIQUES
from fettle.models.bypass import Bypass

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def resnet(tiny, name="cifar:resnet20"):
    return models.load(name, signature=tiny.signature).eval()


def allocated(widths="", blocks="", **knobs):
    knobs = {"epochs": 0, "bn_batches": 0, **knobs}
    return TECHNIQUES.make("prune.allocated", widths=widths, blocks=blocks, **knobs)


def test_widths_are_as_asked_and_the_others_stay(tiny):
    model = resnet(tiny)
    pruned = allocated("layer1.0.conv1=0.5 layer2.1.conv1=0.75")(model, tiny)
    before, after = (
        {n: m.out_channels for n, m in each.named_modules() if isinstance(m, nn.Conv2d)}
        for each in (model, pruned)
    )
    assert {n: w for n, w in after.items() if w != before[n]} == {
        "layer1.0.conv1": 8,
        "layer2.1.conv1": 24,
    }
    assert pruned.layer2[1].conv2.in_channels == 24


def test_the_strongest_channels_stay_and_compute_what_they_did(tiny):
    """Against the whole model with the weakest channels silenced by hand."""
    model = resnet(tiny)
    pruned = allocated("layer1.0.conv1=0.5")(model, tiny)
    silenced = copy.deepcopy(model)
    block = silenced.layer1[0]
    tensors = (block.conv1.weight, block.bn1.weight[:, None], block.bn1.bias[:, None],
               block.conv2.weight.transpose(0, 1))  # fmt: skip
    norms = [t.detach().double().flatten(1).pow(2).sum(1).numpy() for t in tensors]
    left = {int(i) for i in pruned_channels(model, pruned)}
    with torch.no_grad():
        gone = [i for i in range(16) if i not in left]
        block.bn1.weight[gone] = 0
        block.bn1.bias[gone] = 0
    torch.testing.assert_close(pruned(X), silenced(X), rtol=1e-4, atol=1e-5)
    own = norms[0] / norms[0].mean() + norms[3] / norms[3].mean()
    assert left == set(np.argsort(own)[8:].tolist()) or len(left) == 8


def pruned_channels(model, pruned):
    before, after = (m.layer1[0].conv1.weight.detach() for m in (model, pruned))
    return [int((before == row).flatten(1).all(1).nonzero()[0]) for row in after]


def test_blocks_go_by_name(tiny):
    model = resnet(tiny)
    pruned = allocated(blocks="layer3.1 layer3.2")(model, tiny)
    stand_ins = [n for n, m in pruned.named_modules() if isinstance(m, nn.Identity | Bypass)]
    assert [n for n in stand_ins if "shortcut" not in n] == ["layer3.1", "layer3.2"]
    by_hand = copy.deepcopy(model)
    by_hand.layer3 = by_hand.layer3[:1]
    torch.testing.assert_close(pruned(X), by_hand(X))


def test_widths_and_blocks_together_with_a_root_in_a_block_that_goes(tiny):
    """Stage 3's residual width is numbered by a layer; that its own block goes doesn't matter."""
    model = resnet(tiny)
    parts = Parts(copy.deepcopy(model), (X,))
    roots = [root for root, group in parts.groups.items() if group.width == 64]
    shared = max(roots, key=lambda root: len(parts.groups[root].members))
    pruned = allocated(f"{shared}=0.5 layer3.1.conv1=0.25", "layer3.1")(model, tiny)
    assert pruned.linear.in_features == 32
    assert pruned(X).shape == (3, 4)


def test_naming_nothing_changes_nothing(tiny):
    model = resnet(tiny, "cifar:resnet8")
    same = allocated(bn_batches=8)(model, tiny)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_whole_share_changes_nothing(tiny):
    model = resnet(tiny, "cifar:resnet8")
    same = allocated("layer1.0.conv1=1", bn_batches=8)(model, tiny)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in model.state_dict().items())


def test_fine_tuning_trains_what_is_left(tiny):
    model = resnet(tiny, "cifar:resnet8")
    cut, tuned = (allocated("layer1.0.conv1=0.5", epochs=e)(model, tiny) for e in (0, 1))
    assert {k: v.shape for k, v in cut.state_dict().items()} == {
        k: v.shape for k, v in tuned.state_dict().items()
    }
    assert not torch.equal(cut.conv1.weight, tuned.conv1.weight)


def test_it_prints_and_parses_back():
    step = allocated("layer1.0.conv1=0.5 layer2.1.conv1=0.75", "layer3.1", epochs=3)
    assert parse_step(str(step)) == step


def test_it_comes_back_from_a_folder(tiny, tmp_path):
    pruned = allocated("layer1.0.conv1=0.5", "layer2.1")(resnet(tiny), tiny)
    models.save(pruned, tmp_path / "m")
    torch.testing.assert_close(models.open(tmp_path / "m")(X), pruned(X), rtol=0, atol=0)


@pytest.mark.parametrize("importance", ["taylor", "fpgm", "random"])
def test_other_importances_leave_the_same_widths(tiny, importance):
    pruned = allocated("layer1.0.conv1=0.5", importance=importance)(resnet(tiny), tiny)
    assert pruned.layer1[0].conv1.out_channels == 8


@pytest.mark.parametrize(
    ("widths", "blocks", "kind", "said"),
    [
        ("layer1.0.conv7=0.5", "", UnknownName, r"layer1\.0\.conv"),
        ("", "layer3.9", UnknownName, r"`layer3\."),
        ("layer1.0.conv2=0.5", "", ModelError, r"goes with that of `\w"),
        ("linear=0.5", "", UnknownName, "group of channels"),
        ("layer1.0.conv1", "", KnobError, "a share above 0"),
        ("layer1.0.conv1=half", "", KnobError, "a share above 0"),
        ("layer1.0.conv1=0", "", KnobError, "a share above 0"),
        ("layer1.0.conv1=1.5", "", KnobError, "a share above 0"),
        ("=0.5", "", KnobError, "a share above 0"),
        ("layer1.0.conv1=0.5 layer1.0.conv1=0.5", "", KnobError, "each layer once"),
    ],
)
def test_wrong_names_and_shares_are_refused(tiny, widths, blocks, kind, said):
    with pytest.raises(kind, match=said):
        allocated(widths, blocks)(resnet(tiny), tiny)


def test_shares_are_read_in_order():
    assert shares_in(" a.b=0.5\tc=1e-1 ") == {"a.b": 0.5, "c": 0.1}
    assert shares_in("") == {}


class Fixed(nn.Module):
    """A split at a fixed place: the width of `inner` can't change."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(64, 16), nn.Linear(8, 4)

    def forward(self, x):
        y = self.inner(x.flatten(1))
        return self.head(y[:, :8] * y[:, 8:])


@pytest.mark.parametrize("seed", range(4))
def test_what_can_not_be_removed_is_refused_by_name(tiny, seed):
    torch.manual_seed(seed)  # with 3, the weakest half takes the whole other half along
    with pytest.raises((ModelError, UnknownName), match="inner"):
        allocated("inner=0.5")(Fixed().eval(), tiny)


@pytest.mark.parametrize("removed", [list(range(8)), list(range(8, 16)), [0, 8]])
def test_no_removal_is_proven_that_leaves_nothing(removed):
    torch.manual_seed(0)
    model = Fixed().eval()
    graph, groups = ChannelGraph.of(model, (torch.randn(2, 1, 8, 8),))
    assert groups
    for group in groups:
        assert not provable(graph, [group], {group.root: removed})


def test_the_ends_of_layers_are_the_groups_that_they_touch(tiny):
    parts = Parts(resnet(tiny, "cifar:resnet8"), (X,))
    reads, makes = parts.ends()
    assert reads["layer1.0.conv2"] == makes["layer1.0.conv1"] == "layer1.0.conv1"
    assert reads["layer1.0.conv1"] == makes["conv1"] == makes["layer1.0.conv2"]
    assert "linear" not in makes
    assert "conv1" not in reads
    order = list(running(parts.model, (X,)))
    assert order[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert order[-1] == "linear"


def test_trying_leaves_the_model_as_it_was(tiny):
    model = resnet(tiny, "cifar:resnet8")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    parts = Parts(model, (X,))
    assert "layer1.0.conv1" in parts.narrowable()
    tried = parts.without({"layer1.0.conv1": 0.5}, ())
    assert tried.layer1[0].conv1.out_channels == 8
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.layer1[0].conv1.out_channels == 16
    same = allocated("layer1.0.conv1=0.5")(model, tiny)
    torch.testing.assert_close(tried(X), same(X), rtol=0, atol=0)
