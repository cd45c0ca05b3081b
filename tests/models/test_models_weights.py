from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from fettle import models
from fettle.core.errors import ModelError


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def assert_same(a, b):
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], tensor, rtol=0, atol=0)


def test_safetensors_round_trip(tmp_path):
    source, target = net(), net()
    models.save_weights(source, tmp_path / "w.safetensors")
    assert models.load_weights(target, tmp_path / "w.safetensors") is target
    assert_same(source, target)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
    ],
)
def test_torch_files_are_read_and_unwrapped(tmp_path, wrap):
    source, target = net(), net()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pt")
    models.load_weights(target, tmp_path / "w.pt")
    assert_same(source, target)


def test_counts_of_batches_may_be_missing(tmp_path):
    source, target = net(), net()
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pt")
    models.load_weights(target, tmp_path / "w.pt")
    assert_same(source, target)


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save({"weight": Trap()}, tmp_path / "w.pt")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("w.pt", "plain.pth"):
        with pytest.raises(ModelError, match="safetensors"):
            models.read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"\x08\0\0\0\0\0\0\0{broken}", "no sound safetensors"),
        ("w.safetensors", b"", "no sound safetensors"),
        ("w.pt", b"", "sound|corrupted"),
        ("w.pt", b"PK\x03\x04 cut off", "sound|corrupted"),
        ("w.h5", b"", "are read from"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        models.read_weights(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="there is none"):
        models.read_weights(tmp_path / "w.safetensors")


def test_things_that_are_no_tensors_are_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="tensors by name"):
        models.read_weights(tmp_path / "w.pt")


def test_weights_of_another_model_are_explained_and_change_nothing(tmp_path):
    module = net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    other = nn.Sequential(nn.Linear(3, 5), nn.Identity(), nn.Linear(5, 2))
    models.save_weights(other, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        models.load_weights(module, tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "4 missing: 1.weight" in message
    assert "2 unexpected: 2.bias, 2.weight" in message
    assert "0.weight (expected [4, 3], got [5, 3])" in message
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
