import itertools

import pytest
import torch
from torch import nn

from fettle.compress.prune.semi_structured import smaller_half
from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.testing import Recorder


def pruned(model, task, recorder=None, **knobs):
    technique = TECHNIQUES.make("prune.semi_structured", **{"epochs": 0, **knobs})
    return technique.within(Context(progress=recorder or Recorder()))(model, task)


def net(channels=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3), nn.ReLU(),
        nn.Conv2d(channels, 8, 3, groups=2), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ConvTranspose2d(8, 8, 2), nn.Flatten(),
        nn.Linear(8 * 25, 4),
    ).eval()  # fmt: skip


def of_four(weight):
    """Yield each four consecutive weights along the inputs, by plain indices."""
    for index in itertools.product(*(range(n) for n in (weight.shape[0], *weight.shape[2:]))):
        row = weight[(index[0], slice(None), *index[1:])].tolist()
        yield from (row[i : i + 4] for i in range(0, len(row), 4))


@pytest.mark.parametrize("shape", [(3, 8), (2, 4, 3, 3), (5, 12, 1), (2, 4, 2, 2, 2)])
def test_the_two_largest_of_each_four_stay(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left = weight.masked_fill(smaller_half(weight), 0)
    pairs = list(zip(of_four(weight), of_four(left), strict=True))
    assert len(pairs) == weight.numel() // 4
    for before, after in pairs:
        largest = sorted(before, key=abs)[2:]
        assert sorted(v for v in after if v) == sorted(largest)


def test_of_equal_weights_the_last_stay():
    assert smaller_half(torch.ones(1, 4)).tolist() == [[True, True, False, False]]


def test_zeros_that_are_there_count():
    assert smaller_half(torch.tensor([[0.0, 5, 0, -6]])).tolist() == [[True, False, True, False]]


def test_what_has_no_groups_of_four_stays_dense_and_is_named(tiny):
    recorder = Recorder()
    result = pruned(net(), tiny, recorder)
    shares = {n: float((p == 0).float().mean()) for n, p in result.named_parameters() if p.ndim > 1}
    assert shares == {"0.weight": 0, "2.weight": 0.5, "4.weight": 0, "5.weight": 0, "7.weight": 0.5}
    assert recorder.lines == ["no groups of 4, left dense: 0.weight, 4.weight, 5.weight"]


def test_layers_can_be_chosen(tiny):
    result = pruned(net(), tiny, layers="linear")
    assert (result[7].weight == 0).float().mean() == 0.5
    assert (result[2].weight != 0).all()


def test_every_group_of_a_linear_layer_has_two(tiny):
    weight = pruned(net(), tiny)[7].weight.detach()
    assert ((weight.view(4, -1, 4) != 0).sum(-1) == 2).all()


def test_training_keeps_the_pattern(tiny):
    model = net()
    cut, tuned = pruned(model, tiny), pruned(model, tiny, epochs=2, batch_size=16)
    for index in (2, 7):
        assert torch.equal(cut[index].weight == 0, tuned[index].weight == 0)
        assert not torch.equal(cut[index].weight, tuned[index].weight)


def test_a_model_without_groups_is_refused(tiny):
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)
    )
    with pytest.raises(ModelError, match="multiple of 4"):
        pruned(model, tiny)
    with pytest.raises(ModelError, match="has none"):
        pruned(nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(4)), tiny)
