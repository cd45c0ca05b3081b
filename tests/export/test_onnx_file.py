import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from fettle import models, tasks
from fettle.core.arrays import Batch
from fettle.core.errors import ModelError, ParityError, StorageError
from fettle.core.shelf import TECHNIQUES
from fettle.export import OPSET, Parity, ParityLimits, check_parity, export_onnx, onnx_file
from fettle.testing import TinyTask

LIMITS = ParityLimits()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    ).eval()


@pytest.fixture(scope="module")
def task():
    return TinyTask()


@pytest.fixture(scope="module")
def module():
    return net()


@pytest.fixture(scope="module")
def path(module, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "out"
    export_onnx(module, task, folder)
    return folder / "model.onnx"


def tampered(path, tmp_path, change):
    """Write a copy of the model whose largest weight was changed."""
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    array = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "tampered.onnx")
    return tmp_path / "tampered.onnx"


def test_names_types_and_a_free_batch(path):
    model = onnx.load(path)
    (x,), (y,) = model.graph.input, model.graph.output
    assert (x.name, y.name) == ("input", "logits")
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (x, y)]
    assert shapes == [["batch", 1, 8, 8], ["batch", 4]]
    assert {o.domain: o.version for o in model.opset_import}[""] == OPSET


@pytest.mark.parametrize("batch", [1, 2, 3, 17])
def test_any_batch_computes_what_the_module_does(path, module, batch):
    x = np.random.default_rng(batch).normal(size=(batch, 1, 8, 8)).astype(np.float32)
    found = ort.InferenceSession(path).run(None, {"input": x})[0]
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_file_holds_no_stack_traces_and_no_paths(path):
    content = path.read_bytes()
    for mark in (b"stack_trace", b".py", b"/usr", b"site-packages", b"pkg.torch", b'File "'):
        assert mark not in content
    model = onnx.load(path)
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_the_same_module_gives_the_same_bytes(path, module, task, tmp_path):
    export_onnx(module, task, tmp_path / "again")
    assert (tmp_path / "again" / "model.onnx").read_bytes() == path.read_bytes()


def test_a_module_in_training_mode_is_exported_in_evaluation_mode(task, tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)).train()
    assert export_onnx(module, task, tmp_path / "out").agreement == 1
    kinds = {node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node}
    assert "Dropout" not in kinds


def test_parity_says_how_close(path, module, task):
    parity = check_parity(module, path, task, LIMITS)
    assert isinstance(parity, Parity)
    assert parity.max_difference < 1e-4
    assert parity.mean_difference <= parity.max_difference
    assert parity.agreement == 1
    assert parity.n == task.size("calibrate")


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w * 1.01,
        lambda w: -w,
        np.zeros_like,
        lambda w: np.full_like(w, np.nan),
        lambda w: np.where(np.arange(w.size).reshape(w.shape) == 7, w + 1, w).astype(w.dtype),
    ],
    ids=["scaled", "negated", "zero", "nan", "one number"],
)
def test_a_changed_weight_is_noticed(path, module, task, tmp_path, change):
    with pytest.raises(ParityError) as caught:
        check_parity(module, tampered(path, tmp_path, change), task, LIMITS)
    assert "doesn't compute what its module computes" in str(caught.value)
    assert caught.value.exit_code == 1


def test_another_module_is_noticed(path, task):
    with pytest.raises(ParityError):
        check_parity(net(seed=1), path, task, LIMITS)


def test_the_limits_decide(path, module, task, tmp_path):
    slightly = tampered(path, tmp_path, lambda w: (w * 1.001).astype(w.dtype))
    found = check_parity(module, slightly, task, ParityLimits(1, 1, 0))
    assert 1e-5 < found.mean_difference < 1e-2
    tight = ParityLimits(mean=found.mean_difference / 2, maximum=1)
    with pytest.raises(ParityError):
        check_parity(module, slightly, task, tight)


def test_a_quantized_graph_has_wider_limits():
    plain, quantized = ParityLimits(), ParityLimits.quantized()
    assert quantized.mean > plain.mean
    assert quantized.maximum > plain.maximum
    assert quantized.agreement < plain.agreement


def test_a_failed_parity_leaves_what_was_there(module, task, tmp_path, monkeypatch):
    export_onnx(module, task, tmp_path / "out")
    before = (tmp_path / "out" / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx_file, "ParityLimits", lambda: ParityLimits(-1, -1, 2, look="none"))
    with pytest.raises(ParityError):
        export_onnx(net(seed=1), task, tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


class Branch(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4] if x.sum() > 0 else x.flatten(1)[:, 4:8]


class Foreign(nn.Module):
    """Uses an operator that ONNX doesn't have."""

    def forward(self, x):
        return torch.linalg.eigvalsh(x[:, 0] @ x[:, 0].mT)[:, :4]


class Raising(nn.Module):
    def forward(self, x):
        raise ZeroDivisionError("of my own")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Branch, "can't be exported to ONNX"),
        (Foreign, "can't be exported to ONNX"),
        (Raising, "can't take the task's inputs.*of my own"),
    ],
)
def test_what_can_not_be_exported_is_a_model_error(bad, says, task, tmp_path):
    with pytest.raises(ModelError, match=says) as caught:
        export_onnx(bad(), task, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_large_weights_go_beside_the_graph(module, task, path, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "EXTERNAL_FROM_BYTES", 100)
    export_onnx(module, task, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["model.onnx", "model.onnx.data"]
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    places = {e.value for t in graph.initializer for e in t.external_data if e.key == "location"}
    assert places == {"model.onnx.data"}
    x = task.example_inputs(3)
    found, expected = (
        ort.InferenceSession(p).run(None, x)[0] for p in (tmp_path / "out" / "model.onnx", path)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_folder_that_can_not_be_written(module, task, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        export_onnx(module, task, tmp_path / "file" / "out")


def test_exporting_leaves_the_module_alone(task, tmp_path):
    module = net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    export_onnx(module, task, tmp_path / "out")
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_quantized_module_is_exported_with_its_q_dq_pairs(module, task, tmp_path):
    parity = export_onnx(TECHNIQUES.make("quantize.static")(module, task), task, tmp_path / "out")
    kinds = [n.op_type for n in onnx.load(tmp_path / "out" / "model.onnx").graph.node]
    assert kinds.count("QuantizeLinear") >= 2
    assert parity.agreement >= 0.98


class OneExample(TinyTask):
    """A task with a single calibration example, which the exporter would take for a constant."""

    def batches(self, split, batch_size=256):
        for batch in super().batches(split, batch_size):
            one = {name: array[:1] for name, array in batch.inputs.items()}
            yield Batch(one, batch.targets[:1])
            return


def test_one_example_does_not_fix_the_batch(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
    export_onnx(model, OneExample(), tmp_path / "out")
    session = ort.InferenceSession(tmp_path / "out" / "model.onnx")
    x = torch.randn(5, 1, 8, 8)
    np.testing.assert_allclose(
        session.run(None, {"input": x.numpy()})[0], model(x).detach().numpy(), atol=1e-5
    )


@pytest.mark.parametrize(
    ("first", "weight", "says"),
    [
        (nn.Conv2d(3, 4, 3), 1.0, r"can't take the task's inputs \(float32 \(2, 1, 8, 8\)\)"),
        (nn.Conv2d(1, 4, 3), np.nan, "outputs on example inputs are NaN"),
        (nn.Conv2d(1, 4, 3), np.inf, "outputs on example inputs are NaN"),
    ],
)
def test_a_model_that_does_not_work_is_no_fault_of_the_exporter(
    task, tmp_path, first, weight, says
):
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
    nn.init.constant_(model[-1].weight, weight)
    with pytest.raises(ModelError, match=says):
        export_onnx(model, task, tmp_path / "out")


@pytest.mark.slow  # no smaller network was found that needs it
def test_attention_is_written_out_where_its_fused_form_cannot_be_exported(tmp_path):
    task = tasks.load("noise:3x256x256:10", test=8, select=4, calibrate=8, examples=64)
    module = models.load("timm:maxvit_nano_rw_256", signature=task.signature)
    assert export_onnx(module, task, tmp_path / "onnx").agreement == 1.0
