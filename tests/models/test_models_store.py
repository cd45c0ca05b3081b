from __future__ import annotations

import copy
import json

import pytest
import torch
import torch_pruning
from torch import nn

from fettle import models
from fettle.core.errors import ModelError
from fettle.models._origin import ATTRIBUTE
from fettle.models.cifar import Shortcut


def randomised(module):
    """Give batch norms statistics that matter, so that equal outputs mean equal weights."""
    generator = torch.Generator().manual_seed(0)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module


class ShortcutPruner(torch_pruning.BasePruningFunc):
    def prune_out_channels(self, layer, idxs):
        layer.drop_outputs(idxs)
        return layer

    def prune_in_channels(self, layer, idxs):
        layer.drop_inputs(idxs)
        return layer

    def get_out_channels(self, layer):
        return layer.out_channels

    def get_in_channels(self, layer):
        return layer.in_channels


def pruned(module, x, ignored):
    torch_pruning.pruner.MetaPruner(
        module,
        x,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
        customized_pruners={Shortcut: ShortcutPruner()},
    ).step()
    return module


def batch(channels=3, size=32):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def check_round_trip(module, folder, x):
    wanted = module(x)
    models.save(module, folder)
    again = models.open(folder)
    torch.testing.assert_close(again(x), wanted, rtol=0, atol=0)
    assert models.origin_of(again) == models.origin_of(module)
    assert models.structure(again) == models.structure(module)


def test_a_pruned_cifar_resnet_comes_back(tmp_path):
    module, x = randomised(models.load("cifar:resnet20")), batch()
    before = sum(p.numel() for p in module.parameters())
    pruned(module, x, [module.linear])
    assert sum(p.numel() for p in module.parameters()) < 0.3 * before
    assert module.layer2[0].shortcut.out_channels == module.layer2[0].conv2.out_channels == 16
    check_round_trip(module, tmp_path / "m", x)


def test_pruning_a_cifar_resnet_equals_silencing_its_channels():
    """What a channel is removed from computes as if the channel were zero everywhere."""
    module, x = randomised(models.load("cifar:resnet8")), batch()
    silenced = copy.deepcopy(module)
    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(module, x, customized_pruners={Shortcut: ShortcutPruner()})
    for layer, index in (("conv1", 3), ("layer2.0.conv2", 12)):
        root = module.get_submodule(layer)
        graph.get_pruning_group(root, torch_pruning.prune_conv_out_channels, [index]).prune()
    for name, index in (("bn1", 3), ("layer1.0.bn2", 3), ("layer2.0.bn2", 12)):
        norm = silenced.get_submodule(name)
        norm.weight.data[index] = norm.bias.data[index] = 0
    shortcut = silenced.layer2[0].shortcut
    shortcut.source = (*shortcut.source[:12], -1, *shortcut.source[13:])
    torch.testing.assert_close(module(x), silenced(x), rtol=1e-4, atol=1e-4)


def test_a_pruned_torchvision_resnet_comes_back(tmp_path):
    module, x = randomised(models.load("torchvision:resnet18")), batch(size=64)
    pruned(module, x, [module.fc])
    assert module.conv1.out_channels == 32
    check_round_trip(module, tmp_path / "m", x)


def test_a_pruned_depthwise_network_comes_back(tmp_path):
    module, x = randomised(models.load("torchvision:mobilenet_v2")), batch(size=64)
    pruned(module, x, [module.classifier[1]])
    check_round_trip(module, tmp_path / "m", x)


def test_removed_and_replaced_blocks_come_back(tmp_path):
    module = randomised(models.load("cifar:resnet20"))
    del module.layer1[2]
    module.layer2[1] = nn.Identity()
    check_round_trip(module, tmp_path / "m", batch())


class Late(nn.Module):
    """Makes its table at the first forward pass, as ConViT does, and never saves it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(1), persistent=False)

    def forward(self, x):
        if len(self.table) != x.shape[-1]:
            self.table = torch.arange(1.0, x.shape[-1] + 1)
        return x * self.table


@pytest.fixture
def late(monkeypatch):
    """A module with such a table after its first forward pass, opened as any other."""
    module = models.load("cifar:resnet8x0.5")
    monkeypatch.setattr(
        "fettle.models._store.rebuild",
        lambda origin: nn.Sequential(models.load(origin.spec), Late()).eval(),
    )
    whole = nn.Sequential(module, Late()).eval()
    setattr(whole, ATTRIBUTE, models.origin_of(module))
    whole(batch())
    return whole


def test_a_table_that_the_first_pass_makes_comes_back(late, tmp_path):
    check_round_trip(late, tmp_path / "m", batch())


def test_a_folder_without_a_changed_table_is_refused(late, tmp_path):
    models.save(late, tmp_path / "m")
    (tmp_path / "m" / "buffers.safetensors").unlink()
    with pytest.raises(ModelError, match=r"`1\.table` of shape"):
        models.open(tmp_path / "m")


def test_saving_again_replaces_the_folder(tmp_path):
    for seed in (0, 1):
        torch.manual_seed(seed)
        module = models.load("cifar:resnet8")
        check_round_trip(module, tmp_path / "m", batch())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_a_copy_keeps_its_origin(tmp_path):
    check_round_trip(copy.deepcopy(models.load("cifar:resnet8")), tmp_path / "m", batch())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


def test_tied_weights_stay_tied():
    small = models.structure(Tied())
    for path in "ab":
        small[path]["shapes"]["weight"] = [2, 2]
    module = models.restructure(Tied(), small)
    assert module.a.weight is module.b.weight
    assert module.a.weight.shape == (2, 2)


def test_a_module_without_origin_is_refused(tmp_path):
    with pytest.raises(ModelError, match="where it came from"):
        models.save(nn.Linear(2, 2), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_structure_is_json():
    found = models.structure(models.load("cifar:resnet8"))
    assert json.loads(json.dumps(found)) == found
    assert found["layer2.0.shortcut"]["numbers"] == {
        "stride": 2,
        "in_channels": 16,
        "source": [*[-1] * 8, *range(16), *[-1] * 8],
    }


def _strange_number(record):
    record["structure"]["conv1"]["numbers"]["forward"] = 3


def _strange_part(record):
    record["structure"]["evil"] = record["structure"]["conv1"]


def _huge(record):
    record["structure"]["conv1"]["shapes"]["weight"] = [10**9, 10**9, 3, 3]


def _negative(record):
    record["structure"]["conv1"]["shapes"]["weight"] = [-1, 3, 3, 3]


def _no_origin(record):
    del record["origin"]


def _odd_origin(record):
    record["origin"]["classes"] = "ten"


@pytest.mark.parametrize(
    "damage", [_strange_number, _strange_part, _huge, _negative, _no_origin, _odd_origin]
)
def test_a_damaged_record_is_refused(tmp_path, damage):
    models.save(models.load("cifar:resnet8"), tmp_path)
    file = tmp_path / "structure.json"
    record = json.loads(file.read_text())
    damage(record)
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError):
        models.open(tmp_path)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"structure\.json"):
        models.open(tmp_path)
