import copy

import pytest
import torch
from torch import nn

from fettle import models
from fettle.compress.prune._heads import attentions
from fettle.compress.prune.heads import choose, head_scores
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.models._torchvision import import_torchvision

import_torchvision()


class Encoder(nn.Module):
    """Two attention layers of timm's kind over the rows of an image."""

    def __init__(self):
        super().__init__()
        from timm.layers.attention import Attention

        self.inlet, self.head = nn.Linear(8, 24), nn.Linear(24, 4)
        self.layers = nn.ModuleList(Attention(24, num_heads=4, qkv_bias=True) for _ in range(2))

    def forward(self, x):
        x = self.inlet(x.squeeze(1))
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean(1))


def encoder():
    torch.manual_seed(0)
    return Encoder().eval()


def test_silent_heads_go_first_and_nothing_changes(tiny):
    model = encoder()
    layers = attentions(model)
    layers["layers.0"].silence([1, 3])
    layers["layers.1"].silence([0])
    pruned = TECHNIQUES.make("prune.heads", ratio=3 / 8, epochs=0)(model, tiny)
    assert [layer.num_heads for layer in pruned.layers] == [2, 3]
    assert pruned.layers[0].qkv.out_features == 3 * 12
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pruned(x), model(x))
    assert model.layers[0].num_heads == 4


def test_taylor_is_the_derivative_by_a_mask(tiny):
    """Michel et al.: |∂L/∂ξ| at ξ = 1, for a mask ξ of heads; here by finite differences."""
    model = encoder().double()
    batch = next(iter(tiny.batches("train", 1)))
    x = torch.from_numpy(batch.inputs["input"]).double()
    step, expected = 1e-5, []
    for head in range(4):
        losses = []
        for sign in (1, -1):
            changed = copy.deepcopy(model)
            columns = attentions(changed)["layers.0"].columns([head])
            with torch.no_grad():
                changed.layers[0].proj.weight[:, columns] *= 1 + sign * step
            losses.append(tiny.loss(changed(x), batch).item())
        expected.append(abs(losses[0] - losses[1]) / (2 * step))
    one = copy.copy(tiny)
    one.batches = lambda split, size=1: iter([batch])
    got = head_scores(model.float(), one, attentions(model), "taylor")["layers.0"]
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(got, wanted / wanted.norm(), rtol=1e-3, atol=1e-4)


def test_each_layer_keeps_its_best_head():
    scores = {"a": torch.tensor([0.1, 0.2, 0.3]), "b": torch.tensor([5.0, 6.0])}
    assert choose(scores, 0.95) == {"a": [0, 1], "b": [0]}
    assert choose(scores, 0.4) == {"a": [0, 1]}
    assert choose(scores, 0) == {}


def test_bert_comes_back_from_a_folder(tmp_path):
    model = models.load("hf:bert-mini")
    layers = attentions(model)
    assert len(layers) == 4
    for layer in layers.values():
        layer.silence([1])
    ids = torch.arange(24).view(2, 12)
    mask = torch.ones_like(ids)
    silent = model(ids, mask)
    for layer in layers.values():
        layer.remove([1])
    torch.testing.assert_close(model(ids, mask), silent, rtol=1e-4, atol=1e-5)
    models.save(model, tmp_path / "m")
    torch.testing.assert_close(models.open(tmp_path / "m")(ids, mask), model(ids, mask))


@pytest.mark.parametrize("kind", ["torchvision", "torch"])
def test_attention_that_ties_its_width_to_the_models_is_refused(tiny, kind):
    if kind == "torchvision":
        from torchvision.models import VisionTransformer

        vit = VisionTransformer(8, 4, 1, 2, 16, 32, num_classes=4)
        model = nn.Sequential(nn.Conv2d(1, 3, 1), vit)
    else:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model = nn.Sequential(nn.Flatten(1, 2), layer, nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ModelError, match=r"nn\.MultiheadAttention.*as wide as the model"):
        TECHNIQUES.make("prune.heads")(model, tiny)


def test_a_model_without_heads_is_refused(tiny):
    with pytest.raises(ModelError, match="none with several heads"):
        TECHNIQUES.make("prune.heads")(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), tiny)
