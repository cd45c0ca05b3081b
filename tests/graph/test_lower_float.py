import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from fettle.core.errors import ModelError
from fettle.core.recipe import parse_step
from fettle.core.shelf import TECHNIQUES
from fettle.export import export_onnx
from fettle.graph import weighted_nodes
from fettle.models._torchvision import import_torchvision
from fettle.testing import TinyTask, sample

F = np.float32
S = F(0.05)
RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (2, 3, 6, 6)).astype(F)
W = {n: RNG.integers(-127, 128, s).astype(np.int8)
     for n, s in (("p", (4, 3, 1, 1)), ("d", (4, 4, 1, 1)), ("y", (2, 4, 1, 1)))}  # fmt: skip
T = {n: RNG.uniform(0.001, 0.01, len(w)).astype(F) for n, w in W.items()}


def lowered(graph, names):
    return lowered_model(graph.ir, names.split(","))


def lowered_model(model, names):
    result = parse_step(f"graph.lower_float(nodes='{','.join(names)}')")(model)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def net(build):
    """p → hard-swish → d → y, with a pair before each layer."""
    held = {"s": S, "z": np.array(0, np.int8)}
    nodes, source = [], "x"
    for name, weight in W.items():
        nodes += [
            ("QuantizeLinear", [source, "s", "z"], [f"{name}_q"]),
            ("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_a"]),
            ("DequantizeLinear", [f"{name}_w", f"{name}_s", f"{name}_z"], [f"{name}_d"],
             {"axis": 0}),
            ("Conv", [f"{name}_a", f"{name}_d"], [name]),
        ]  # fmt: skip
        zeros = np.zeros(len(weight), np.int8)
        held |= {f"{name}_w": weight, f"{name}_s": T[name], f"{name}_z": zeros}
        source = name
        if name == "p":
            nodes += [
                ("QuantizeLinear", ["p", "s", "z"], ["h_q"]),
                ("DequantizeLinear", ["h_q", "s", "z"], ["h_a"]),
                ("HardSwish", ["h_a"], ["h"]),
            ]
            source = "h"
    return build(nodes, held, inputs={"x": [2, 3, 6, 6]})


def quantized(x):
    return np.clip(np.rint(x / S), -128, 127) * S


def layer(name, x):
    weight = W[name][:, :, 0, 0] * T[name][:, None].astype(float)
    return np.einsum("oi,nihw->nohw", weight, x)


def swish(x):
    return x * np.clip(x / 6 + 0.5, 0, 1)


def kinds(model):
    return [node.op_type for node in model.graph]


def test_all_layers_turned_are_the_float_model(build, run):
    result = lowered(net(build), "p,d,y")
    assert kinds(result) == ["Conv", "HardSwish", "Conv", "Conv"]
    x = X.astype(float)
    expected = layer("y", layer("d", swish(layer("p", x))))
    np.testing.assert_allclose(run(result, {"x": X})["y"], expected, atol=1e-4)


def test_what_stands_between_float_layers_is_float_and_nothing_else(build, run):
    result = lowered(net(build), "p, d")
    assert kinds(result).count("QuantizeLinear") == 1  # the input of y
    expected = layer("y", quantized(layer("d", swish(layer("p", X.astype(float))))))
    error = np.abs(run(result, {"x": X})["y"] - expected)
    assert np.median(error) < 1e-5  # but for ties


def test_one_layer_in_the_middle(build, run):
    result = lowered(net(build), "d")
    assert kinds(result).count("QuantizeLinear") == 3
    found = run(result, {"x": X})["y"]
    inner = quantized(layer("p", quantized(X.astype(float))))
    expected = layer("y", quantized(layer("d", swish(inner))))
    assert np.median(np.abs(found - expected)) < 1e-5


def test_without_names_nothing_changes(build):
    graph = net(build)
    assert kinds(lowered(graph, "")) == kinds(graph.ir)


def test_a_real_master_becomes_its_weights_in_float(run):
    model = ir.load(sample().master)
    layers = [n.outputs[0].name for n in model.graph if n.op_type in {"Conv", "Gemm"}]
    result = parse_step(f"graph.lower_float(nodes='{','.join(layers)}')")(model)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(result))
    found = run(result, sample().inputs())["logits"]
    # the weights' rounding is all that is left
    difference = np.abs(found - sample().expected).mean()
    assert difference < 0.05 * np.abs(sample().expected).mean()


def test_an_unknown_layer_is_named_with_those_there_are(build):
    with pytest.raises(ModelError, match=r"nobody.*d, p, y"):
        lowered(net(build), "p,nobody")


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="has none"):
        lowered(build([("Relu", ["x"], ["y"])]), "")


def test_a_weight_that_is_transposed_after_it_was_dequantized(build, run):
    """As torch's linear layers are exported; a weight of three dimensions too."""
    weight = RNG.integers(-127, 128, (3, 5, 4)).astype(np.int8)  # n, outputs, inputs
    scales = RNG.uniform(0.001, 0.01, 5).astype(F)
    held = {"s": S, "z": np.array(0, np.int8), "w": weight, "t": scales}
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"]),
        ("DequantizeLinear", ["q", "s", "z"], ["a"]),
        ("DequantizeLinear", ["w", "t"], ["d"], {"axis": 1}),
        ("Transpose", ["d"], ["f"], {"perm": [0, 2, 1]}),
        ("MatMul", ["a", "f"], ["y"]),
    ]
    result = lowered(build(nodes, held, inputs={"x": [3, 6, 4]}), "y")
    assert kinds(result) == ["MatMul"]
    x = RNG.normal(0, 2, (3, 6, 4)).astype(F)
    expected = x.astype(float) @ (weight * scales[:, None].astype(float)).swapaxes(1, 2)
    np.testing.assert_allclose(run(result, {"x": x})["y"], expected, atol=1e-5)


class Encoder(nn.Module):
    """A BERT-shaped encoder of embedded tokens, and a head."""

    def __init__(self):
        super().__init__()
        import_torchvision()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            vocab_size=10, attn_implementation="eager",
        )  # fmt: skip
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.bert(inputs_embeds=x.squeeze(1)).last_hidden_state.mean(1))


def vit():
    import_torchvision()
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48,
                             depth=2, in_chans=1, num_classes=4)  # fmt: skip


@pytest.mark.parametrize(("make", "image"), [(Encoder, (1, 8, 32)), (vit, (1, 32, 32))])
def test_every_layer_of_a_transformer_can_be_turned_back(make, image, tmp_path, run):
    torch.manual_seed(0)
    task = TinyTask(image=image)
    module = make().eval()
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    export_onnx(TECHNIQUES.make("quantize.static", samples=16)(module, task), task, tmp_path)
    model = ir.load(tmp_path / "model.onnx")
    names = [node.outputs[0].name for node in weighted_nodes(model.graph)]
    assert len(names) == len(layers)
    result = lowered_model(model, names)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(result))
    x = task.example_inputs(8)
    with torch.no_grad():
        expected = module(torch.from_numpy(next(iter(x.values())))).numpy()
    found = run(result, x)["logits"]
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()  # weights' rounding
