import pytest
import torch
from torch import nn

from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES


class Mixed(nn.Module):
    """A residual stream with a feed-forward network and an attention."""

    def __init__(self):
        super().__init__()
        self.inlet, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    def forward(self, x):
        x = self.inlet(x.squeeze(1))  # (n, 8 tokens, 8)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.ffn(self.norm(x))
        return self.head(x.mean(1))


def mixed():
    torch.manual_seed(0)
    return Mixed().eval()


def test_the_weakest_neurons_go_and_nothing_else(tiny):
    model = mixed()
    technique = TECHNIQUES.make("prune.ffn", ratio=0.5, importance="l2", round_to=1, epochs=0)
    pruned = technique(model, tiny)
    up, down = model.ffn[0], model.ffn[2]
    norms = up.weight.double().pow(2).sum(1) + down.weight.double().pow(2).sum(0)
    left = torch.argsort(norms)[16:].sort().values
    assert torch.equal(pruned.ffn[0].weight, up.weight[left])
    assert torch.equal(pruned.ffn[2].weight, down.weight[:, left])
    for name, tensor in model.state_dict().items():
        if not name.startswith("ffn"):
            assert torch.equal(tensor, pruned.state_dict()[name])


def test_neurons_that_do_nothing_go_first_by_taylor(tiny):
    model = mixed()
    with torch.no_grad():
        model.ffn[2].weight[:, ::2] = 0  # no output listens to them
    pruned = TECHNIQUES.make("prune.ffn", ratio=0.5, round_to=1, epochs=0)(model, tiny)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pruned(x), model(x))
    assert all(p.grad is None for p in pruned.parameters())


def test_a_model_without_hidden_layers_is_refused(tiny):
    with pytest.raises(ModelError, match="has none"):
        TECHNIQUES.make("prune.ffn")(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), tiny)


def test_a_convolutional_model_is_refused(tiny):
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    with pytest.raises(ModelError, match="none"):
        TECHNIQUES.make("prune.ffn")(nn.Sequential(*layers), tiny)
