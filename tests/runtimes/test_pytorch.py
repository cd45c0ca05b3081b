import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fettle.core.errors import MissingError, ModelError
from fettle.core.shelf import RUNTIMES
from fettle.testing import sample

X = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))


def runtime(**knobs):
    return RUNTIMES.make("pytorch", **{"threads": 1, **knobs})


def test_it_runs_the_very_module_in_evaluation_mode():
    module = net().train()
    found = runtime().build(module).run({"input": X})["logits"]
    expected = module.eval()(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_array_equal(found, expected)


def test_an_onnx_file_is_refused_with_its_mend():
    with pytest.raises(ModelError, match=r"model\.onnx is an ONNX file: use onnxruntime"):
        runtime().build(Path("some/model.onnx"))


def test_compiling_without_a_compiler_names_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert runtime().supports() is None
    assert "apt-get install g++" in runtime(mode="compiled").supports()
    with pytest.raises(MissingError, match="compiled"):
        runtime(mode="compiled").build(net())


def test_threads_are_set_while_it_runs_and_given_back():
    seen = []

    class Looks(nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return x * 2

    runtime(threads=2).build(Looks()).run({"input": X})
    assert seen == [2]
    assert torch.get_num_threads() == 1


def test_layers_tell_the_type_of_their_weights():
    layers = runtime().build(net()).layers()
    assert [(layer.name, layer.op, layer.precision) for layer in layers] == [("2", "Linear", "f32")]
    half = runtime(precision="bf16").build(net())
    assert [layer.precision for layer in half.layers()] == ["bf16"]
    assert half.run({"input": X})["logits"].dtype == np.float32


def test_a_quantized_graph_runs_too():
    from fettle.core.shelf import TECHNIQUES

    quantized = TECHNIQUES.make("quantize.static")(sample().module, sample().task)
    found = runtime().build(quantized).run(sample().inputs())["logits"]
    assert (found.argmax(1) == sample().expected.argmax(1)).mean() > 0.9


def test_gradients_are_not_kept():
    module = net()
    runtime().build(module).run({"input": X})
    assert all(p.grad is None for p in module.parameters())
