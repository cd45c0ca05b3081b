from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fettle import models, tasks
from fettle.core.arrays import TensorSpec
from fettle.core.errors import ModelError, UnknownName
from fettle.core.shelf import RUNTIMES
from fettle.core.signature import Signature
from fettle.export import export_onnx
from fettle.models import Origin
from fettle.train import FitPlan, accuracy, fit

SEQUENCE = Signature((TensorSpec("input", "float32", (-1, 7, 5)),), 4)
TOKENS = Signature(
    (TensorSpec("input_ids", "int64", (-1, 9)), TensorSpec("attention_mask", "int64", (-1, 9))),
    3,
    50,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_computes_the_published_formula():
    module = models.load("rnn:lstm16", signature=SEQUENCE).double()
    x = np.random.default_rng(0).normal(size=(3, 7, 5))
    r = module.recurrent
    w, u, b, d = (
        getattr(r, name).detach().numpy()
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    )
    h, c, steps = np.zeros((3, 16)), np.zeros((3, 16)), []
    for t in range(7):
        i, f, g, o = np.split(x[:, t] @ w.T + b + h @ u.T + d, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        steps.append(h)
    weight, bias = (p.detach().numpy() for p in module.linear.parameters())
    wanted = np.mean(steps, axis=0) @ weight.T + bias
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "hidden", "layers", "both"),
    [("lstm", 64, 1, False), ("bigru", 64, 1, True), ("gru32x2", 32, 2, False)],
)
def test_names_say_kind_size_and_layers(name, hidden, layers, both):
    r = models.load(f"rnn:{name}").recurrent
    assert (r.hidden_size, r.num_layers, r.bidirectional) == (hidden, layers, both)
    assert type(r).__name__ == ("LSTM" if "lstm" in name else "GRU")


@pytest.mark.parametrize("name", ["lstn", "lstm0", "gru64x0", "bi", "transformer"])
def test_unknown_names_are_refused(name):
    with pytest.raises(UnknownName, match="rnn:"):
        models.load(f"rnn:{name}")


def test_padding_changes_nothing_of_one_direction():
    module = models.load("rnn:gru16", signature=TOKENS)
    ids = torch.randint(1, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9) < torch.tensor([[9], [4], [1], [6]])).long()
    other = torch.where(mask == 1, ids, 7)
    torch.testing.assert_close(module(ids, mask), module(other, mask))
    alone = module(ids[1:2, :4], mask[1:2, :4])
    torch.testing.assert_close(module(ids, mask)[1:2], alone)


def test_an_image_is_read_row_by_row():
    signature = Signature((TensorSpec("input", "float32", (-1, 2, 6, 3)),), 4)
    module = models.load("rnn:lstm8", signature=signature)
    x = torch.randn(2, 2, 6, 3)
    rows = torch.cat([x[:, 0], x[:, 1]], dim=2)  # (2, 6, 6)
    torch.testing.assert_close(module(x), module(rows))


def test_inputs_that_are_no_sequence_are_refused():
    flat = Signature((TensorSpec("input", "float32", (-1, 7)),), 4)
    two = Signature((*SEQUENCE.inputs, TensorSpec("more", "float32", (-1, 2))), 4)
    for signature in (flat, two):
        with pytest.raises(ModelError, match=r"one sequence \(time, features\)"):
            models.load("rnn:lstm", signature=signature)


@pytest.mark.parametrize("spec", ["cifar:resnet8", "torchvision:resnet18", "timm:resnet18"])
@pytest.mark.parametrize("signature", [SEQUENCE, TOKENS])
def test_models_of_images_refuse_sequences(spec, signature):
    with pytest.raises(ModelError, match="takes one image"):
        models.load(spec, signature=signature)


@pytest.mark.parametrize("signature", [SEQUENCE, TOKENS])
def test_saved_and_opened_it_is_the_same(tmp_path, signature):
    module = models.load("rnn:bilstm8x2", signature=signature)
    models.save(module, tmp_path / "saved")
    opened = models.open(tmp_path / "saved")
    assert opened.fettle_origin == module.fettle_origin
    for key, value in module.state_dict().items():
        assert torch.equal(value, opened.state_dict()[key])


def test_an_origin_survives_json_and_old_ones_still_open():
    origin = Origin.of("rnn:lstm", TOKENS)
    assert Origin.from_json(json.loads(json.dumps(origin.to_json()))) == origin
    old = Origin.from_json({"spec": "cifar:resnet20", "classes": 10, "image": [3, 32, 32]})
    assert (old.image, old.inputs, old.vocabulary) == ((3, 32, 32), (), 0)
    for damage in ({"inputs": [{"name": "x"}]}, {"inputs": 3}, {"vocabulary": "many"}):
        with pytest.raises(ModelError, match="an origin"):
            Origin.from_json({**origin.to_json(), **damage})


@pytest.mark.parametrize("data", ["rows:digits", "tokens:9:3:50"])
def test_engines_compute_what_torch_does(tmp_path, data):
    task = tasks.load(data)
    module = models.load("rnn:lstm16", signature=task.signature)
    export_onnx(module, task, tmp_path / "out")
    inputs = task.example_inputs(5)
    with torch.no_grad():
        wanted = module(*(torch.from_numpy(a) for a in inputs.values())).numpy()
    for name in ("onnxruntime", "openvino"):
        session = RUNTIMES.make(name, threads=1).build(tmp_path / "out" / "model.onnx")
        np.testing.assert_allclose(session.run(inputs)["logits"], wanted, atol=1e-5)
        session.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_digits_are_learned_from_their_rows(name):
    task = tasks.load("rows:digits")
    module = models.load(f"rnn:{name}", signature=task.signature)
    plan = FitPlan(epochs=30, batch_size=16, optimizer="adamw", lr=1e-2)
    fit(module, task, plan, validate=False)
    assert accuracy(module, task, "test") > 0.94
