import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as reference

from fettle import models
from fettle.compress.prune._unstructured import make_zero, prunable, smallest
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.export import export_onnx
from fettle.measure import sparsity_of
from fettle.testing import TechniqueContract, sample
from fettle.train import accuracy


def magnitude(**knobs):
    return TECHNIQUES.make("prune.magnitude", **{"epochs": 0, **knobs})


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    ).eval()


def zeros(model):
    return {n: p == 0 for n, p in model.named_parameters() if p.ndim > 1}


def count(model):
    return {n: int(z.sum()) for n, z in zeros(model).items()}


def pruned_by_torch(model, share, scope):
    """What torch.nn.utils.prune makes zero, made permanent."""
    other = copy.deepcopy(model)
    layers = [(m, "weight") for m in other.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    if scope == "global":
        reference.global_unstructured(layers, reference.L1Unstructured, amount=share)
    for module, name in layers:
        if scope == "layer":
            reference.l1_unstructured(module, name, share)
        reference.remove(module, name)
    return other


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.77, 0.9])
def test_the_same_weights_go_as_in_torch(tiny, share, scope):
    model = net()
    found = magnitude(sparsity=share, scope=scope)(model, tiny)
    expected = pruned_by_torch(model, share, scope)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_scopes_differ(tiny):
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(100)
    by_layer, together = (
        count(magnitude(sparsity=0.5, scope=s)(model, tiny)) for s in ("layer", "global")
    )
    assert by_layer == {"0.weight": 36, "4.weight": 576}
    assert together["0.weight"] == 0
    assert together["4.weight"] == 612


def test_what_comes_out_is_plain(tiny):
    model = net()
    result = magnitude(sparsity=0.5)(model, tiny)
    assert result.state_dict().keys() == model.state_dict().keys()
    assert not any(m._forward_pre_hooks for m in result.modules())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_of_equal_weights_the_first_go(scope):
    weight = nn.Parameter(torch.ones(2, 5))
    where = smallest({"w": weight}, 0.5, scope)["w"]
    # the first is also the first of the largest, which a layer keeps
    assert where.flatten().tolist() == [False] + [True] * 5 + [False] * 4


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_no_layer_is_emptied(tiny, scope):
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    result = magnitude(sparsity=0.99, scope=scope)(model, tiny)
    left = {n: int((~z).sum()) for n, z in zeros(result).items()}
    assert left == ({"0.weight": 1, "4.weight": 12} if scope == "layer" else {"0.weight": 1, "4.weight": 11})  # fmt: skip  # noqa: E501


def test_a_single_weight_is_never_removed():
    assert not smallest({"w": nn.Parameter(torch.ones(1, 1))}, 0.99, "layer")["w"].any()


def test_a_sparsity_of_zero_changes_nothing(tiny):
    model = net()
    same = magnitude(sparsity=0)(model, tiny)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in model.state_dict().items())


def test_pruning_again_goes_on_from_the_zeros(tiny):
    once = magnitude(sparsity=0.3)(net(), tiny)
    twice = magnitude(sparsity=0.6)(once, tiny)
    less = magnitude(sparsity=0.1)(twice, tiny)
    assert all((b | ~a).all() for a, b in zip(*map(lambda m: zeros(m).values(), (once, twice)), strict=True))  # fmt: skip  # noqa: E501, C417
    assert count(less) == count(twice) == count(magnitude(sparsity=0.6)(net(), tiny))


def test_layers_can_be_chosen(tiny):
    assert count(magnitude(layers="linear")(net(), tiny)) == {"0.weight": 0, "4.weight": 346}
    assert count(magnitude(layers="convolutions")(net(), tiny)) == {"0.weight": 22, "4.weight": 0}


def test_ends_can_be_kept(tiny):
    model = models.load("cifar:resnet8", signature=tiny.signature)
    result = count(magnitude(sparsity=0.5, keep_ends=True)(model, tiny))
    dense = [name for name, n in result.items() if n == 0]
    assert dense == ["conv1.weight", "linear.weight"]
    with pytest.raises(ModelError, match="has none"):
        magnitude(keep_ends=True)(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), tiny)


def test_shared_weights_count_once(tiny):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(64, 64)
            self.b = nn.Linear(64, 64)
            self.b.weight = self.a.weight
            self.head = nn.Linear(64, 4)

        def forward(self, x):
            return self.head(self.b(self.a(x.flatten(1))))

    result = magnitude(sparsity=0.5, epochs=1)(Twice(), tiny)
    assert result.a.weight is result.b.weight
    assert count(result) == {"a.weight": 2048, "head.weight": 128}


def test_attention_and_transposed_convolutions_take_part():
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "mixed": nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
            "up": nn.ConvTranspose2d(2, 2, 2),
            "table": nn.Embedding(5, 8),
            "nothing": nn.ModuleList(),
        }
    )
    assert set(prunable(model)) == {
        "attention.in_proj_weight", "attention.out_proj.weight", "mixed.q_proj_weight",
        "mixed.k_proj_weight", "mixed.v_proj_weight", "mixed.out_proj.weight", "up.weight",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_elements_are_left_out():
    weights = prunable(nn.ModuleList([nn.Linear(0, 3), nn.Linear(2, 3)]))
    assert list(weights) == ["1.weight"]


def test_models_it_cannot_work_on_are_refused(tiny):
    with pytest.raises(ModelError, match="has none"):
        magnitude(layers="convolutions")(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), tiny)
    broken = net()
    with torch.no_grad():
        broken[4].weight[1, 2] = float("nan")
    with pytest.raises(ModelError, match=r"4\.weight.*NaN"):
        magnitude()(broken, tiny)


def test_training_heals_and_keeps_the_zeros():
    cut, healed = (
        TechniqueContract().result("prune.magnitude") if epochs else
        magnitude(sparsity=0.9)(sample().module, sample().task) for epochs in (0, 1)
    )  # fmt: skip
    strict = magnitude(sparsity=0.9, epochs=6, lr=0.05, batch_size=32)
    tuned = strict(sample().module, sample().task)
    assert count(tuned) == count(cut)
    assert accuracy(tuned, sample().task, "select") > accuracy(cut, sample().task, "select") + 0.2
    assert sum(count(healed).values()) > 0


def test_zeros_survive_saving_export_and_quantization(tmp_path):
    task = sample().task
    result = magnitude(sparsity=0.6, scope="global")(sample().module, task)
    share = sum(count(result).values()) / sum(z.numel() for z in zeros(result).values())
    assert share == pytest.approx(0.6, abs=1e-3)
    models.save(result, tmp_path / "model")
    again = models.open(tmp_path / "model")
    assert all(map(torch.equal, zeros(again).values(), zeros(result).values()))
    export_onnx(result, task, tmp_path / "fp32")
    assert sparsity_of(tmp_path / "fp32" / "model.onnx") == pytest.approx(share, abs=1e-6)
    quantized = TECHNIQUES.make("quantize.static")(result, task)
    export_onnx(quantized, task, tmp_path / "int8")
    assert sparsity_of(tmp_path / "int8" / "model.onnx") >= share - 1e-6


def test_zeros_can_be_put_anywhere():
    weight = nn.Parameter(torch.ones(2, 2))
    make_zero({"w": weight}, {"w": torch.eye(2, dtype=torch.bool)})
    assert weight.tolist() == [[0, 1], [1, 0]]
