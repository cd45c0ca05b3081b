from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from fettle import models
from fettle.core.arrays import TensorSpec
from fettle.core.errors import UnknownName
from fettle.core.signature import Signature
from fettle.models.cifar import Shortcut, scaled

DATA = Path(os.environ.get("FETTLE_DATA") or Path(__file__).parents[3] / "shared" / "data")


def count(module):
    return sum(p.numel() for p in module.parameters())


# He et al. (2016), table 6: 0.27 M, 0.46 M, 0.66 M, 0.85 M parameters
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_parameters_are_those_of_the_paper(depth, millions):
    module = models.load(f"cifar:resnet{depth}")
    assert count(module) / 1e6 == pytest.approx(millions, abs=0.006)
    weighted = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == depth


@pytest.mark.parametrize("name", ["resnet21", "resnet2", "resnet", "resnet20x0", "vgg16"])
def test_other_names_are_refused_with_the_nearest(name):
    with pytest.raises(UnknownName, match="cifar:resnet"):
        models.load(f"cifar:{name}")


def test_width_scales_channels_to_multiples_of_four():
    module = models.load("cifar:resnet8x0.5")
    widths = [module.get_submodule(f"layer{i}.0.conv2").out_channels for i in (1, 2, 3)]
    assert widths == [8, 16, 32]
    assert [scaled(16, 0.1), scaled(16, 0.75), scaled(64, 0.3)] == [4, 12, 20]


def test_the_signature_sets_classes_and_channels():
    signature = Signature((TensorSpec("input", "float32", (-1, 1, 8, 8)),), 7)
    module = models.load("cifar:resnet8", signature=signature)
    assert module(torch.zeros(3, 1, 8, 8)).shape == (3, 7)
    assert not module.training


def test_shortcut_subsamples_and_pads_with_zeros():
    x = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).reshape(2, 3, 5, 5)
    y = Shortcut(2, 3, 6)(x).numpy()
    wanted = np.zeros((2, 6, 3, 3), np.float32)
    wanted[:, 1:4] = x.numpy()[:, :, ::2, ::2]
    np.testing.assert_array_equal(y, wanted)


def test_a_shortcut_that_lost_channels_still_leads_the_others_right():
    shortcut = Shortcut(1, 4, 8)  # outputs take -1 -1 0 1 2 3 -1 -1
    shortcut.drop_inputs([1])
    shortcut.drop_outputs([0, 4])  # left: -1 0 (1 is gone) 3 -1 -1
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))  # channels 0 2 3
    zero = torch.zeros(2, 1, 4, 4)
    wanted = torch.cat([zero, x[:, :1], zero, x[:, 2:], zero, zero], dim=1)
    assert torch.equal(shortcut(x), wanted)
    assert (shortcut.in_channels, shortcut.out_channels) == (3, 6)


@pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec, LeafSpec\):FutureWarning")
@pytest.mark.parametrize("pruned", [False, True])
def test_it_exports_with_a_free_batch(tmp_path, pruned):
    module = models.load("cifar:resnet8")
    if pruned:  # a shortcut that is no plain padding any more, of the same shape
        module.layer2[0].shortcut.source = (3, *[-1] * 16, *range(15))
    batch = {0: torch.export.Dim.DYNAMIC}
    path = tmp_path / "m.onnx"
    program = torch.export.export(module, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=(batch,))
    torch.onnx.export(program, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(got, module(x).detach().numpy(), atol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize("depth", [20, 56])
def test_published_weights_fit_and_classify(depth):
    file = DATA / "weights" / f"cifar10_resnet{depth}.safetensors"
    if not file.is_file():
        pytest.skip(f"the benchmark data is not at {DATA}")
    from fettle import tasks

    module = models.load(f"cifar:resnet{depth}", weights=file)
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}", calibrate=500)
    (batch,) = task.batches("calibrate", batch_size=500)
    with torch.inference_mode():
        logits = module(torch.from_numpy(batch.inputs["input"])).numpy()
    # trained on these very images: nearly all are right, and only with the right preprocessing
    assert task.score({"logits": logits}, batch).mean() > 0.98
