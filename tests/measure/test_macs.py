import numpy as np
import pytest
from onnx import helper

from fettle.core.errors import ModelError
from fettle.core.shelf import METRICS
from fettle.measure import Artifact, layer_macs, macs_of, parameters_of

NODE = helper.make_node


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype=dtype)


def multiplications(x, w, groups, stride):
    """Count a 2-d convolution's products by walking over it (no padding)."""
    out = [(x[d] - w[d]) // stride + 1 for d in (2, 3)]
    count = 0
    for _channel in range(w[0]):
        for _row in range(out[0]):
            for _column in range(out[1]):
                count += (x[1] // groups) * w[2] * w[3]
    return count


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 2), (4, 1)])
def test_convolution(make_onnx, groups, stride):
    w = (8, 4 // groups, 3, 2)
    node = NODE("Conv", ["x", "w"], ["y"], group=groups, strides=[stride, stride])
    path = make_onnx([node], {"w": ones(*w)}, {"x": ["batch", 4, 9, 7]})
    assert macs_of(path) == multiplications((1, 4, 9, 7), (8, 4, 3, 2), groups, stride)


@pytest.mark.parametrize("groups", [1, 2])
def test_torch_counts_the_same(make_onnx, groups):
    """torch's counter says two operations for what is one MAC here."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    convolution = torch.nn.Conv2d(4, 8, 3, padding=1, stride=2, groups=groups)
    back = torch.nn.ConvTranspose2d(8, 6, 2, stride=2, groups=groups)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        back(convolution(torch.ones(1, 4, 10, 12)))
    nodes = [
        NODE("Conv", ["x", "w"], ["h"], pads=[1] * 4, strides=[2, 2], group=groups),
        NODE("ConvTranspose", ["h", "v"], ["y"], strides=[2, 2], group=groups),
    ]
    held = {"w": convolution.weight.detach().numpy(), "v": back.weight.detach().numpy()}
    path = make_onnx(nodes, held, {"x": ["n", 4, 10, 12]})
    assert 2 * macs_of(path) == counter.get_total_flops()


def test_products(make_onnx):
    nodes = [
        NODE("Gemm", ["x", "a", "bias"], ["h"], transB=1),
        NODE("MatMul", ["h", "b"], ["y"], name="second"),
    ]
    held = {"a": ones(7, 5), "bias": ones(7), "b": ones(7, 3)}
    path = make_onnx(nodes, held, {"x": ["batch", 5]})
    assert [(layer.op, layer.macs) for layer in layer_macs(path)] == [
        ("Gemm", 5 * 7), ("MatMul", 7 * 3),
    ]  # fmt: skip
    assert layer_macs(path)[1].name == "second"
    assert parameters_of(path) == 35 + 7 + 21


def test_a_product_of_activations_counts_its_batches(make_onnx):
    nodes = [NODE("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), NODE("MatMul", ["x", "t"], ["y"])]
    path = make_onnx(nodes, {}, {"x": ["batch", 2, 6, 4]})
    assert macs_of(path) == 2 * 6 * 6 * 4
    assert parameters_of(path) == 0


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(make_onnx, op, gates):
    steps, inside, hidden = 11, 5, 6
    w, r = ones(2, gates * hidden, inside), ones(2, gates * hidden, hidden)
    node = NODE(op, ["x", "w", "r"], ["y"], hidden_size=hidden, direction="bidirectional")
    path = make_onnx([node], {"w": w, "r": r}, {"x": [steps, 1, inside]})
    assert macs_of(path) == 2 * steps * gates * hidden * (inside + hidden)


def test_integer_kin_count_alike_and_scales_are_no_parameters(make_onnx):
    """QLinearConv → DequantizeLinear → onnxruntime's own product, which ONNX can't infer."""
    scale, zero = np.float32(0.1), np.uint8(0)
    nodes = [
        NODE("QuantizeLinear", ["x", "s", "z"], ["q"]),
        NODE("QLinearConv", ["q", "s", "z", "w", "s", "wz", "s", "z", "bias"], ["c"]),
        NODE("DequantizeLinear", ["c", "s", "z"], ["d"]),
        NODE("Flatten", ["d"], ["f"]),
        NODE("DynamicQuantizeMatMul", ["f", "v", "s", "wz"], ["g"], domain="com.microsoft"),
        NODE("MatMul", ["g", "u"], ["y"]),
    ]
    held = {
        "s": scale, "z": zero, "wz": np.int8(0), "w": ones(2, 3, 3, 3, dtype=np.int8),
        "bias": ones(2, dtype=np.int32), "v": ones(32, 5, dtype=np.int8), "u": ones(5, 4),
    }  # fmt: skip
    path = make_onnx(nodes, held, {"x": ["n", 3, 6, 6]}, domains=("", "com.microsoft"))
    assert [layer.macs for layer in layer_macs(path)] == [32 * 27, 32 * 5, 5 * 4]
    assert parameters_of(path) == 54 + 2 + 160 + 20


def test_indices_and_clip_bounds_are_no_parameters(make_onnx):
    nodes = [
        NODE("Gather", ["table", "rows"], ["g"]),
        NODE("Clip", ["x", "low", "high"], ["c"]),
        NODE("Add", ["g", "c"], ["y"]),
    ]
    held = {
        "table": ones(10, 4), "rows": np.array([1, 2]),
        "low": np.float32(0), "high": np.float32(6),
    }  # fmt: skip
    path = make_onnx(nodes, held, {"x": [2, 4]})
    assert parameters_of(path) == 40


def test_free_dimensions_besides_the_batch_must_be_told(make_onnx):
    node = NODE("MatMul", ["x", "w"], ["y"])
    path = make_onnx([node], {"w": ones(4, 3)}, {"x": ["batch", "steps", 4]})
    with pytest.raises(ModelError, match="shapes="):
        macs_of(path)
    assert macs_of(path, {"x": (1, 9, 4)}) == 9 * 4 * 3


def test_local_functions_are_looked_into(make_onnx):
    inner = helper.make_function(
        "own", "Layer", ["a", "b"], ["c"], [NODE("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    node = NODE("Layer", ["x", "w"], ["y"], domain="own")
    path = make_onnx(
        [node], {"w": ones(4, 3)}, {"x": ["batch", 4]}, domains=("", "own"), functions=[inner]
    )
    assert macs_of(path) == 12


def test_shapes_that_contradict_each_other_are_refused(make_onnx):
    node = NODE("Foreign", ["x", "w"], ["y"], domain="nobody")
    path = make_onnx([node], {"w": ones(4, 3)}, {"x": ["n", 4]}, domains=("", "nobody"))
    with pytest.raises(ModelError, match="can't be found"):
        macs_of(path)


def test_the_plug_in_takes_shapes_from_the_task(make_onnx):
    class Task:
        def example_inputs(self, n=2):
            return {"x": np.zeros((n, 9, 4), np.float32)}

    node = NODE("MatMul", ["x", "w"], ["y"])
    path = make_onnx([node], {"w": ones(4, 3)}, {"x": ["batch", "steps", 4]})
    found = METRICS.make("macs").measure(Artifact(path, task=Task()))
    assert (found.name, found.unit, found.value) == ("macs", "MAC", 9 * 4 * 3)
