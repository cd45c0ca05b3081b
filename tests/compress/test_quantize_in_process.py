import doctest
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fettle
from fettle.compress.quantize import in_process
from fettle.core.errors import DataError, InputError, ModelError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(16, 3, 8, 8, generator=GENERATOR)
ROWS = torch.randn(16, 32, generator=GENERATOR)


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 5))


def convolutional():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, eps=1e-2), nn.ReLU(), nn.Conv2d(16, 16, 3)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 8), nn.Linear(8, 3)

    def forward(self, ids, mask):
        return self.head((self.embed(ids) * mask[..., None]).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def close(quantized, model, x, bound):
    with torch.no_grad():
        expected = model.eval()(x)
        difference = (quantized(x) - expected).abs().mean() / expected.abs().mean()
    return 0 < difference < bound


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_dynamic_weights_are_the_formulas_integers():
    """q = round(w / scale), scale = max |w| / 127.5 by row: int8 has 255 steps (torchao)."""
    model = perceptron()
    quantized = fettle.quantize_dynamic(model)
    weight = model[0].weight.detach().double().numpy()
    found = quantized[0].weight
    assert found.qdata.dtype == torch.int8
    scale = found.scale.double().numpy()
    np.testing.assert_allclose(scale.ravel(), np.abs(weight).max(1) / 127.5, rtol=1e-6)
    expected = np.clip(np.rint(weight / scale), -128, 127)
    assert np.abs(found.qdata.numpy() - expected).max() <= 1
    assert (found.qdata.numpy() == expected).mean() > 0.99


def test_dynamic_answers_as_the_float_model_does():
    assert close(fettle.quantize_dynamic(perceptron()), perceptron(), ROWS, 0.03)


@pytest.mark.parametrize(
    ("make", "x"), [(convolutional, IMAGES), (perceptron, ROWS)], ids=["images", "rows"]
)
def test_static_answers_as_the_float_model_does(make, x):
    quantized = fettle.quantize_static(make(), [x])
    assert close(quantized, make(), x, 0.05)
    assert quantized.eval()(x[:1]).shape == (1, 5)


def test_static_weights_are_int8_and_no_float_ones_are_left():
    quantized = fettle.quantize_static(convolutional(), [IMAGES])
    held = [b for b in quantized.buffers() if b.dim() > 1]
    assert sorted(b.numel() for b in held) == [3 * 16 * 9, 256 * 5, 16 * 16 * 9]
    assert {b.dtype for b in held} == {torch.int8}
    assert all(p.dim() == 1 for p in quantized.parameters())


@pytest.mark.parametrize("quantize", ["quantize_dynamic", "quantize_static"])
def test_the_model_is_left_as_it_is(quantize):
    model = perceptron().train()
    before = state(model)
    getattr(fettle, quantize)(model, *([ROWS],) * (quantize == "quantize_static"))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in state(model).items())


@pytest.mark.parametrize(
    "batch",
    [IMAGES, (IMAGES,), [IMAGES, torch.zeros(16)], ((IMAGES,), torch.zeros(16))],
    ids=["tensor", "tuple", "with target", "nested"],
)
def test_batches_come_in_many_forms(batch):
    assert close(fettle.quantize_static(convolutional(), [batch]), convolutional(), IMAGES, 0.05)


@pytest.mark.parametrize("with_target", [False, True])
def test_named_arguments_are_passed_by_name(with_target):
    torch.manual_seed(0)
    model = Named().eval()
    batch = {"mask": torch.ones(4, 6), "ids": torch.arange(24).reshape(4, 6) % 10}
    given = ({**batch, "labels": torch.zeros(4)}, torch.zeros(4)) if with_target else batch
    quantized = fettle.quantize_static(model, [given])
    found, expected = quantized(**batch), model(**batch)
    assert 0 < (found - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_recurrent_layers_stay_in_float_and_that_is_said():
    torch.manual_seed(0)
    model, x = Recurrent().eval(), torch.randn(4, 5, 8, generator=GENERATOR)
    for quantize in (fettle.quantize_dynamic, lambda m: fettle.quantize_static(m, [x])):
        with pytest.warns(UserWarning, match="LSTM layers stay in float"):
            quantized = quantize(model)
        assert close(quantized, model, x, 0.05)


@pytest.mark.parametrize("quantize", ["quantize_dynamic", "quantize_static"])
def test_nothing_to_quantize_is_refused(quantize):
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(192))
    given = ([IMAGES],) if quantize == "quantize_static" else ()
    with pytest.raises(ModelError, match=r"nothing to quantize|has none"):
        getattr(fettle, quantize)(model, *given)


def spoiled(value):
    bad = IMAGES.clone()
    bad[3, 1] = value
    return bad


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        ([], "holds no batch"),
        ([spoiled(float("nan"))], "NaN or infinity"),
        ([IMAGES, spoiled(float("inf"))], "batch 2 holds NaN or infinity"),
        ([IMAGES[:, :2]], "can't take the first batch"),
        ([IMAGES, IMAGES[..., :7]], "batch 2 has shapes"),
        (["images"], "it is a str"),
        ([IMAGES[:0]], "not empty"),
        ([{}], "it is a dict"),
    ],
    ids=["none", "nan", "infinity", "channels", "size", "text", "no example", "no input"],
)
def test_wrong_batches_are_named(batches, match):
    with pytest.raises(DataError, match=match):
        fettle.quantize_static(convolutional(), batches)


@pytest.mark.parametrize("batches", [IMAGES, {"x": IMAGES}, 3])
def test_one_batch_is_no_iterable_of_batches(batches):
    with pytest.raises(InputError, match="iterable of batches"):
        fettle.quantize_static(convolutional(), batches)


def test_one_constant_example_is_enough():
    quantized = fettle.quantize_static(convolutional(), [torch.zeros(1, 3, 8, 8)])
    assert torch.isfinite(quantized(IMAGES)).all()


def test_a_quantized_model_is_refused():
    quantized = fettle.quantize_static(perceptron(), [ROWS])
    with pytest.raises(ModelError, match="quantized already"):
        fettle.quantize_static(quantized, [ROWS])


def test_a_branch_on_data_is_refused():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 5)

        def forward(self, x):
            return self.linear(x) if x.sum() > 0 else x

    with pytest.raises(ModelError, match="can't be captured"):
        fettle.quantize_static(Branch(), [ROWS])


def test_the_examples_run():
    result = doctest.testmod(in_process)
    assert result.attempted >= 6
    assert not result.failed


@pytest.mark.slow
def test_compiled_static_runs_integer_kernels():
    """With frozen weights TorchInductor calls oneDNN's int8 convolution and linear layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchInductor's own deprecations
        import torch._inductor.config as inductor
        from torch._inductor.utils import run_and_get_code

        quantized = fettle.quantize_static(convolutional(), [IMAGES])
        with inductor.patch(freezing=True), torch.no_grad():
            found, code = run_and_get_code(torch.compile(quantized), IMAGES)
            expected = quantized(IMAGES)
    source = "\n".join(code)
    assert "qconv" in source
    assert "qlinear" in source
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


@pytest.mark.slow
def test_compiled_dynamic_computes_the_same():
    quantized = fettle.quantize_dynamic(perceptron())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        compiled = torch.compile(quantized)
        torch.testing.assert_close(compiled(ROWS), quantized(ROWS), rtol=1e-3, atol=1e-4)
