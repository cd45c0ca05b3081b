import copy

import pytest
import torch
from torch import nn

from fettle import models
from fettle.compress.prune._residual import residual_blocks
from fettle.compress.prune.blocks import block_scores
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.models.bypass import Bypass


class Residual(nn.Module):
    """Adds `strength` times a fixed turn of its input."""

    def __init__(self, strength, pair=False):
        super().__init__()
        self.layer, self.pair = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)), pair
        with torch.no_grad():
            self.layer[2].weight.mul_(strength)
            self.layer[2].bias.mul_(strength)

    def forward(self, x, mask=None):
        y = x + self.layer(x) * (1 if mask is None else mask)
        return (y, None) if self.pair else y


class Net(nn.Module):
    """Blocks of known strength: the weaker, the less it matters."""

    def __init__(self, strengths, pair=False):
        super().__init__()
        self.inlet, self.head = nn.Linear(64, 8), nn.Linear(8, 4)
        self.blocks = nn.ModuleList(Residual(strength, pair) for strength in strengths)

    def forward(self, x):
        x = self.inlet(x.flatten(1))
        for block in self.blocks:
            x = block(x, mask=torch.ones(8))
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x)


def net(*strengths, pair=False):
    torch.manual_seed(0)
    return Net(strengths, pair).eval()


def gone(model):
    return [i for i, block in enumerate(model.blocks) if isinstance(block, Bypass)]


@pytest.mark.parametrize("importance", ["kl", "cosine", "taylor"])
@pytest.mark.parametrize("pair", [False, True])
def test_the_least_important_blocks_go(tiny, importance, pair):
    model = net(4, 0.01, 3, 0.02, 5, pair=pair)
    technique = TECHNIQUES.make("prune.blocks", ratio=0.4, importance=importance, epochs=0)
    pruned = technique(model, tiny)
    assert gone(pruned) == [1, 3]
    assert gone(model) == []
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    by_hand = net(4, 3, 5)
    by_hand.load_state_dict(
        {
            name.replace("blocks.2", "blocks.1").replace("blocks.4", "blocks.2"): tensor
            for name, tensor in model.state_dict().items()
            if not name.startswith(("blocks.1", "blocks.3"))
        }
    )
    torch.testing.assert_close(pruned(x), by_hand(x))


def test_kl_against_the_formula(tiny):
    model = net(2, 1).double()
    x = torch.from_numpy(next(iter(tiny.batches("calibrate", 64))).inputs["input"])
    model.float()
    blocks = residual_blocks(model, (x,))
    scores = block_scores(model, tiny, blocks, "kl")
    without = copy.deepcopy(model)
    without.blocks[0] = Bypass()
    p, q = (torch.softmax(m(x).double(), 1) for m in (model, without))
    expected = (p * (p / q).log()).sum(1).mean().item()
    assert scores["blocks.0"] == pytest.approx(expected, rel=1e-4)


def test_what_is_no_residual_block_is_not_taken():
    straight = nn.Sequential(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    ).eval()
    assert residual_blocks(straight, (torch.randn(2, 8),)) == {}


def test_only_blocks_that_keep_the_shape():
    model = models.load("cifar:resnet20")
    found = residual_blocks(model, (torch.randn(2, 3, 32, 32),))
    assert list(found) == [
        *(f"layer1.{i}" for i in range(3)),
        *(f"layer{stage}.{i}" for stage in (2, 3) for i in (1, 2)),
    ]


def test_finding_leaves_the_model_as_it_was():
    model = models.load("cifar:resnet8")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    residual_blocks(model, (torch.randn(2, 3, 8, 8),))
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_it_comes_back_from_a_folder(tiny, tmp_path):
    model = models.load("cifar:resnet20", signature=tiny.signature)
    pruned = TECHNIQUES.make("prune.blocks", ratio=0.5, epochs=0)(model, tiny)
    models.save(pruned, tmp_path / "m")
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    again = models.open(tmp_path / "m")
    torch.testing.assert_close(again(x), pruned(x), rtol=0, atol=0)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, again))
    assert after < 0.7 * before


def test_a_bypass_comes_back_from_a_structure():
    changed, fresh = net(1, 2, pair=True), net(1, 2, pair=True)
    changed.blocks[0] = Bypass(2)
    models.restructure(fresh, models.structure(changed))
    fresh.load_state_dict(changed.state_dict())
    x = torch.randn(2, 64)
    torch.testing.assert_close(fresh(x), changed(x), rtol=0, atol=0)
    assert fresh.blocks[0].outputs == 2


def test_a_model_without_blocks_is_refused(tiny):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ModelError, match="has none in a sequence"):
        TECHNIQUES.make("prune.blocks")(model, tiny)


def test_a_ratio_of_zero_changes_nothing(tiny):
    model = net(1, 2)
    same = TECHNIQUES.make("prune.blocks", ratio=0, epochs=0)(model, tiny)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in model.state_dict().items())
