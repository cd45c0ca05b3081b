"""What `bench` and `inspect` are given, and what is left of it when a part can't be made."""

import onnx
import pytest
from onnx import TensorProto, helper

from fettle.core.errors import InputError, ModelError
from fettle.core.progress import Silent
from fettle.search.bench import BenchSetting, bench, exit_code_of
from fettle.search.subject import resolve, resolve_all

NETS = """
from torch import nn

class Branches(nn.Module):
    def __init__(self, classes, in_channels):
        super().__init__()
        self.fc = nn.Linear(64 * in_channels, classes)

    def forward(self, x):
        y = self.fc(x.flatten(1))
        return y if y.sum() > 0 else -y

class Wide(Branches):
    def forward(self, x):
        return self.fc(x.flatten(1)[:, :3])

def branches(classes, in_channels):
    return Branches(classes, in_channels)

def wide(classes, in_channels):
    return Wide(classes, in_channels)
"""
QUICK = BenchSetting(("onnxruntime", "pytorch"), (1, 2), (1,), 0.2, memory=False, roofline=False)


@pytest.fixture
def nets(tmp_path):
    file = tmp_path / "nets.py"
    file.write_text(NETS)
    return lambda name: f"{file}:{name}"


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def save_identity(path, kind):
    values = [helper.make_tensor_value_info(name, kind, ["n", 4]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return str(path)


@pytest.fixture
def strings(tmp_path):
    return save_identity(tmp_path / "strings.onnx", TensorProto.STRING)


@pytest.fixture
def numbers(tmp_path):
    return save_identity(tmp_path / "numbers.onnx", TensorProto.FLOAT)


def test_a_torch_model_that_does_not_export_is_timed_by_torch(nets, scratch):
    subject = resolve(nets("branches"), scratch, data="digits")
    with pytest.raises(ModelError, match="can't be exported to ONNX"):
        _ = subject.onnx
    result = bench([subject], QUICK, Silent())
    by_engine = {(row["runtime"], row["batch"]): row for row in result["rows"]}
    for batch in QUICK.batches:
        refused, ran = by_engine["onnxruntime", batch], by_engine["pytorch", batch]
        assert refused["refused"] == str(subject.no_onnx)
        assert refused["refused_kind"] == "model"
        assert ran["refused"] is None
        assert ran["latency_ms"]["p50"] > 0
        assert ran["size_bytes"] == 4 * (64 * 10 + 10)
    assert exit_code_of(result) == 0


def test_it_does_not_stop_what_stands_beside_it(nets, scratch):
    subjects = resolve_all([nets("branches"), "cifar:resnet8x0.5"], scratch, data=["digits"])
    result = bench(subjects, QUICK, Silent())
    assert [row["refused"] is None for row in result["rows"]] == [False, True, True, True] * 2


def test_inputs_that_a_torch_model_does_not_take_are_told_on_every_row(nets, scratch):
    result = bench([resolve(nets("wide"), scratch, data="digits")], QUICK, Silent())
    assert all("can't take the" in row["refused"] for row in result["rows"])
    assert exit_code_of(result) == 2


def test_inputs_that_can_not_be_made_are_told_on_every_row(strings, numbers, scratch):
    setting = BenchSetting(("onnxruntime", "openvino"), (1,), (1,), 0.2, False, roofline=False)
    rows = bench(resolve_all([strings, numbers], scratch), setting, Silent())["rows"]
    assert all("input `x` has type string" in row["refused"] for row in rows[:2])
    assert all("--data" in row["refused"] for row in rows[:2])
    assert [row["refused"] for row in rows[2:]] == [None, None]


def test_data_that_does_not_fit_is_a_wrong_argument(numbers, scratch):
    with pytest.raises(InputError, match=r"tokens:16:2.*doesn't fit"):
        resolve(numbers, scratch, data="tokens:16:2")


def save_recurrent(path, batch):
    """Write `y = x · scale + sum of the state` with a state of two layers and a scalar setting."""
    shapes = {"scale": [], "x": [batch, 4], "state": [2, 1, 4], "y": [batch, 4]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("ReduceSum", ["state"], ["total"], keepdims=0),
        helper.make_node("Add", ["scaled", "total"], ["y"]),
    ]
    inputs = [values[name] for name in ("scale", "x", "state")]
    graph = helper.make_graph(nodes, "g", inputs, [values["y"]])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return str(path)


@pytest.mark.parametrize("batch", ["n", 3])
def test_states_and_settings_are_no_batch(tmp_path, scratch, batch):
    subject = resolve(save_recurrent(tmp_path / "r.onnx", batch), scratch)
    assert subject.held == {"state", "scale"}
    shapes = {name: array.shape for name, array in subject.batch(3).items()}
    assert shapes == {"scale": (), "x": (3, 4), "state": (2, 1, 4)}
    setting = BenchSetting(("onnxruntime", "openvino"), (3,), (1,), 0.2, False, roofline=False)
    rows = bench([subject], setting, Silent())["rows"]
    assert [row["refused"] for row in rows] == [None, None]


def test_two_inputs_of_one_fixed_batch_are_both_batches(tmp_path, scratch):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in "aby"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", values[:2],
                              values[2:])  # fmt: skip
    path = tmp_path / "two.onnx"
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    subject = resolve(str(path), scratch)
    assert subject.held == frozenset()
    assert {len(array) for array in subject.batch(4).values()} == {4}
