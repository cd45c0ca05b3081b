import numpy as np
import pytest
import torch
from torch import nn

from fettle.core.arrays import Batch
from fettle.core.errors import DataError, ModelError
from fettle.train import accuracy, keep_mode, predict


def test_predictions_come_in_the_splits_order_whatever_the_batch_size(net, digits):
    model = net()
    outputs, scores = predict(model, digits, "select", batch_size=64)
    (batch,) = digits.batches("select", batch_size=10_000)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(batch.inputs["input"])).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(scores, expected.argmax(1) == batch.targets)
    assert accuracy(model, digits, "select") == pytest.approx(scores.mean())


def test_evaluates_without_dropout(net, digits):
    model = net().train()
    first, _ = predict(model, digits, "calibrate")
    second, _ = predict(model, digits, "calibrate")
    np.testing.assert_array_equal(first, second)
    assert not model.training


def test_an_exported_graph_is_run_as_it_is(net, digits):
    (inputs,) = digits.example_inputs(4).values()
    batch = {0: torch.export.Dim.DYNAMIC}
    model = net().eval()
    program = torch.export.export(model, (torch.from_numpy(inputs),), dynamic_shapes=(batch,))
    graph = program.module()
    outputs, _ = predict(graph, digits, "calibrate", set_mode=keep_mode)
    expected, _ = predict(model, digits, "calibrate")
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


class Returning(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x.flatten(1)[:, :10])


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: (t, 0), lambda t: {"logits": t}])
def test_the_first_output_counts(digits, wrap):
    outputs, _ = predict(Returning(wrap), digits, "calibrate")
    assert outputs.shape == (digits.size("calibrate"), 10)


@pytest.mark.parametrize("wrap", [lambda t: None, lambda t: (), lambda t: "logits"])
def test_a_model_that_returns_no_tensor_is_refused(digits, wrap):
    with pytest.raises(ModelError, match="expected to return a tensor"):
        predict(Returning(wrap), digits, "calibrate")


def test_inputs_go_in_by_the_signature_and_missing_ones_are_named(net, digits, monkeypatch):
    stray = Batch({"other": np.zeros((2, 1, 8, 8), np.float32)}, np.zeros(2, np.int64))
    monkeypatch.setattr(digits, "batches", lambda split, batch_size: iter([stray]))
    with pytest.raises(DataError, match=r"inputs \['input'\].*\['other'\].*give `input`"):
        predict(net(), digits, "select")


def test_an_empty_split_is_an_error(net, digits, monkeypatch):
    monkeypatch.setattr(digits, "batches", lambda split, batch_size: iter([]))
    with pytest.raises(DataError, match="`select` has no examples"):
        predict(net(), digits, "select")
