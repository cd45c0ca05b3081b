"""Each way of running a module against the same module in float64."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn

from fettle import models
from fettle.core.errors import InputError, MissingError, ModelError
from fettle.core.shelf import RUNTIMES
from fettle.testing import sample

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
EXACT, HALF = 1e-5, 3e-2


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """Compile into a folder of these tests: another run's may be damaged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


def runtime(**knobs):
    return RUNTIMES.make("pytorch", **{"threads": 1, **knobs})


def images(n, size=64):
    return np.random.default_rng(0).standard_normal((n, 3, size, size), dtype=np.float32)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(8, 16, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 3)

    def forward(self, steps):
        return self.head(self.recurrent(steps)[0].mean(1))


def lstm():
    torch.manual_seed(0)
    steps = np.random.default_rng(0).standard_normal((4, 5, 8), dtype=np.float32)
    return Classifier().eval(), {"steps": steps}


def bert():
    from fettle.models._torchvision import import_torchvision

    import_torchvision()
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, num_labels=3,
    )  # fmt: skip
    ids = np.random.default_rng(0).integers(0, 50, (4, 7))
    mask = np.ones_like(ids)
    mask[:, 5:] = 0
    return BertForSequenceClassification(config).eval(), {"attention_mask": mask, "input_ids": ids}


def mobilenet():
    return models.load("torchvision:mobilenet_v3_small"), {"x": images(4)}


def vit():
    return sample().encoder, {"x": sample().inputs(4)["input"]}


def reference(module, inputs):
    tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
    exact = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    twin = copy.deepcopy(module).double()
    with torch.no_grad():
        out = twin(**exact) if len(exact) > 1 else twin(*exact.values())
    return (out if isinstance(out, torch.Tensor) else out.logits).numpy()


def check(made, module, inputs, limit):
    expected = reference(module, inputs)
    for n in (4, 1, 3):
        found = made.run({k: v[:n] for k, v in inputs.items()})["logits"]
        assert found.shape == expected[:n].shape
        assert np.abs(found - expected[:n]).max() <= limit * np.abs(expected).max()


@pytest.mark.parametrize("net", [lstm, bert, mobilenet, vit])
@pytest.mark.parametrize(
    ("knobs", "limit"),
    [({}, EXACT), ({"layout": "channels_last"}, EXACT), ({"precision": "bf16"}, HALF)],
)
def test_as_written(net, knobs, limit):
    module, inputs = net()
    check(runtime(**knobs).build(module), module, inputs, limit)


@pytest.mark.slow
@pytest.mark.parametrize("net", [lstm, bert, mobilenet])
@pytest.mark.parametrize("mode", ["compiled", "aot"])
def test_compiled(net, mode):
    module, inputs = net()
    check(runtime(mode=mode).build(module), module, inputs, EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compiled", "aot"])
def test_compiled_in_bf16(mode):
    module, inputs = vit()
    made = runtime(mode=mode, precision="bf16").build(module)
    check(made, module, inputs, HALF)
    exact = reference(module, inputs)
    assert np.abs(made.run(inputs)["logits"] - exact).max() > 1e-4 * np.abs(exact).max()


@GPU
@pytest.mark.parametrize("net", [bert, mobilenet])
@pytest.mark.parametrize("mode", ["eager", "cuda_graphs", "compiled"])
@pytest.mark.parametrize(
    ("precision", "limit"), [("f32", 1e-4), ("tf32", HALF), ("bf16", HALF), ("f16", HALF)]
)
def test_on_a_gpu(net, mode, precision, limit):
    module, inputs = net()
    made = runtime(mode=mode, precision=precision, device="cuda").build(module)
    check(made, module, inputs, limit)
    assert len(made.device_times(inputs, runs=3)) == 3


def test_channels_last_leaves_the_callers_module_alone():
    module, inputs = mobilenet()
    before = [p.stride() for p in module.parameters()]
    runtime(layout="channels_last").build(module).run(inputs)
    assert [p.stride() for p in module.parameters()] == before


@pytest.fixture
def counted(monkeypatch):
    """Let torch.compile count what it compiles, and compile nothing."""
    graphs = []
    compile_ = torch.compile

    def backend(graph, inputs, **options):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f, **kw: compile_(f, backend=backend))
    torch._dynamo.reset()
    yield graphs
    torch._dynamo.reset()


def test_any_number_of_batch_sizes_takes_three_compilations_at_most(counted):
    made = runtime(mode="compiled").build(nn.Linear(3, 2))
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1):
        assert made.run({"x": np.ones((n, 3), "f4")})["logits"].shape == (n, 2)
    assert 2 <= len(counted) <= 3


def test_sessions_of_one_class_dont_use_up_each_others_compilations(counted):
    for width in range(1, 14):
        runtime(mode="compiled").build(nn.Linear(width, 2)).run({"x": np.ones((2, width), "f4")})
    assert len(counted) == 13


def test_a_model_that_torch_would_stop_compiling_is_refused_not_run_eagerly(counted):
    class Tagged(nn.Module):
        def forward(self, x):
            return x * len(self.tag)

    module = Tagged()
    made = runtime(mode="compiled").build(module)

    def run():
        for n in range(2, 30):
            module.tag = "x" * n  # what torch compiles holds for one text alone
            made.run({"x": np.ones((2, n), "f4")})

    with pytest.raises(ModelError, match="eager"):
        run()


def test_what_cant_be_exported_is_refused_with_another_way():
    class Branches(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    made = runtime(mode="aot").build(Branches())
    if runtime(mode="aot").supports() is None:
        with pytest.raises(ModelError, match="mode='compiled'"):
            made.run({"x": np.ones((2, 3), "f4")})


@pytest.mark.parametrize(
    "knobs",
    [{"mode": "cuda_graphs"}, {"precision": "f16"}, {"precision": "tf32"}, {"device": "cuda"}],
)
def test_what_needs_a_gpu_says_so(monkeypatch, knobs):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = runtime(**knobs).supports()
    assert next(iter(knobs)) in reason
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in runtime(**knobs).supports()
    with pytest.raises(MissingError, match="CUDA"):
        runtime(**knobs).build(nn.Linear(3, 2))


def test_what_needs_a_gpu_is_refused_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "device='cuda'" in runtime(precision="f16", device="cpu").supports()
    with pytest.raises(ModelError, match="device='cuda'"):
        runtime(precision="f16").build(nn.Linear(3, 2))


def test_a_closed_session_says_so():
    made = runtime().build(nn.Linear(3, 2))
    made.close()
    with pytest.raises(InputError, match="closed"):
        made.run({"x": np.ones((2, 3), "f4")})


def test_sessions_with_different_threads_run_at_once_and_give_all_back():
    both, seen = threading.Barrier(2), {}

    class Meets(nn.Module):
        def forward(self, x):
            both.wait(10)
            seen[threading.current_thread().name] = torch.get_num_threads()
            both.wait(10)
            return x

    def run(threads):
        runtime(threads=threads).build(Meets()).run({"x": np.ones((1, 1), "f4")})

    workers = [threading.Thread(target=run, args=(n,), name=str(n)) for n in (2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == {"2": 2, "3": 3}
    assert torch.get_num_threads() == 1


def test_f32_is_exact_even_where_the_process_allows_less():
    seen = []

    class Looks(nn.Module):
        def forward(self, x):
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return x

    torch.set_float32_matmul_precision("medium")
    try:
        runtime().build(Looks()).run({"x": np.ones((1, 1), "f4")})
        assert seen == [("highest", False)]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_damaged_file_of_the_compiler_is_told_with_its_folder(monkeypatch):
    session = runtime(mode="compiled").build(nn.Linear(4, 2))

    def broken(call):
        raise ImportError("kernel.so: file too short")

    monkeypatch.setattr(session, "_way", broken)
    with pytest.raises(ModelError, match=r"file too short.*delete its cache .*inductor"):
        session.run({"input": np.zeros((1, 4), np.float32)})
