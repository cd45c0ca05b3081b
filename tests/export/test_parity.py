"""The second look in float64: rounding is let pass, anything else is not."""

import numpy as np
import pytest
import torch
from torch import nn

from fettle.core.errors import ParityError
from fettle.export import ParityLimits, _parity, export_onnx, onnx_file
from fettle.export._parity import check_parity
from fettle.testing import TinyTask

# Nothing passes the first look, so that all depends on the second.
NONE = ParityLimits(mean=0.0, maximum=0.0)


@pytest.fixture(scope="module")
def task():
    return TinyTask()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 4)).eval()


@pytest.fixture(scope="module")
def path(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity") / "out"
    export_onnx(net(), task, folder)
    return folder / "model.onnx"


def test_rounding_passes(path, task):
    found = check_parity(net(), path, task, NONE)
    assert 0 < found.mean_difference < 1e-5


@pytest.mark.parametrize("change", [1e-3, 1e-5, float("nan")])
def test_anything_else_does_not(path, task, change):
    module = net()
    with torch.no_grad():
        module[1].weight[3, 5] += 1000 * change
        module[3].bias += change
    with pytest.raises(ParityError, match="doesn't compute"):
        check_parity(module, path, task, NONE)


def test_no_second_look_where_none_is_asked_for(path, task):
    with pytest.raises(ParityError):
        check_parity(net(), path, task, ParityLimits(mean=0.0, maximum=0.0, look="none"))


@pytest.mark.parametrize(("change", "passes"), [(1e-4, True), (0.5, False), (float("nan"), False)])
def test_quantized_graphs_may_stray_as_far_as_half_a_step_moves_them(path, task, change, passes):
    module = net()
    with torch.no_grad():
        module[3].bias += change
    limits = ParityLimits(mean=0.0, maximum=0.0, look="half-step")
    if passes:
        check_parity(module, path, task, limits)
        return
    with pytest.raises(ParityError, match="doesn't compute"):
        check_parity(module, path, task, limits)


@pytest.mark.parametrize(("change", "same"), [(1e-4, True), (0.5, False), (float("nan"), False)])
def test_where_inputs_are_integers_the_embeddings_are_moved(change, same):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(20, 16), nn.Flatten(), nn.Linear(16 * 5, 4))
    tokens = np.random.default_rng(0).integers(0, 20, (64, 5))
    with torch.no_grad():
        ours = module(torch.from_numpy(tokens)).numpy()
    assert _parity._moves_alike(module, [[tokens]], ours, ours + change) is same


class Insists(nn.Module):
    def forward(self, x):
        assert x.dtype == torch.float32
        return x.flatten(1)[:, :4]


def test_a_module_that_insists_on_float32_has_no_second_look(path, task):
    with pytest.raises(ParityError):
        check_parity(Insists(), path, task, ParityLimits())


def test_free_dimensions_are_those_of_the_signature(task):
    shapes = onnx_file._free(task)
    assert [list(shape) for shape in shapes] == [[0]]
