from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from fettle import models, tasks
from fettle.core.arrays import TensorSpec
from fettle.core.errors import MissingError, ModelError, UnknownName
from fettle.core.shelf import RUNTIMES
from fettle.core.signature import Signature
from fettle.export import export_onnx
from fettle.models import _hf_hub
from fettle.models._hf_shapes import ALIASES, SHAPES, shape_of
from fettle.tasks import Classification

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def signature(*names, length=12, classes=3, vocabulary=40):
    specs = tuple(TensorSpec(name, "int64", (-1, length)) for name in names)
    return Signature(specs, classes, vocabulary)


BOTH = signature(*NAMES[:2])


def tokens(rows=4, length=12, seed=0):
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(1, 40, (rows, length)))
    mask = (
        torch.arange(length) < torch.from_numpy(rng.integers(min(3, length), length + 1, (rows, 1)))
    ).long()
    return ids, mask


@pytest.mark.parametrize(
    "name", ["bert-tiny", "bert-2x64", "electra-small", "distilbert", "albert", "roberta"]
)
def test_it_computes_what_transformers_does(name):
    if name in ("distilbert", "albert", "roberta"):
        kind, settings = shape_of(name)
        small = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "dim": 32}
        small |= {"n_layers": 2, "n_heads": 2, "hidden_dim": 64, "intermediate_size": 64}
        config = {"model_type": kind, **settings, **small, "num_labels": 3, "vocab_size": 40}
        module = models.rebuild(models.Origin("hf:x", 3, None, BOTH.inputs, 40, config))
    else:
        module = models.load(f"hf:{name}", signature=BOTH)
    ids, mask = tokens()
    with torch.no_grad():
        wanted = module.network(input_ids=ids, attention_mask=mask).logits
        found = module(ids, mask)
        padded = module(torch.where(mask == 1, ids, 9), mask)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(padded, wanted, atol=1e-6, rtol=1e-5)


# Turc et al. 2019, table 1: parameters of the encoder in millions, with 30,522 words
@pytest.mark.parametrize(("name", "millions"), [("bert-tiny", 4.4), ("bert-mini", 11.3)])
def test_sizes_are_those_of_the_paper(name, millions):
    module = models.load(f"hf:{name}")
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_every_name_has_a_shape():
    assert all(shape_of(name) for name in (*SHAPES, *ALIASES, "bert-3x192"))
    assert not any(shape_of(name) for name in ("bert-huge", "bert-0x64", "bert-3x100", "/tmp"))


def test_inputs_come_in_the_order_of_the_signature():
    forward = models.load("hf:bert-2x64", signature=BOTH)
    backward = models.load("hf:bert-2x64", signature=signature(*NAMES[1::-1]))
    three = models.load("hf:bert-2x64", signature=signature(*NAMES))
    sole = models.load("hf:bert-2x64", signature=signature("words"))
    ids, mask = tokens()
    torch.testing.assert_close(forward(ids, mask), backward(mask, ids))
    torch.testing.assert_close(forward(ids, mask), three(ids, mask, torch.zeros_like(ids)))
    assert not torch.allclose(three(ids, mask, torch.ones_like(ids)), forward(ids, mask))
    torch.testing.assert_close(sole(ids), forward(ids, torch.ones_like(ids)))


@pytest.mark.parametrize(
    ("spec", "given", "message"),
    [
        ("hf:distilbert", signature(*NAMES), "takes no `token_type_ids`"),
        ("hf:bert-tiny", signature(*NAMES[:2], length=513), "up to 512 tokens, the data has 513"),
        ("hf:bert-tiny", signature("input_ids", "pixels"), "takes token ids"),
        ("hf:bert-tiny", Signature((TensorSpec("x", "float32", (-1, 9, 4)),), 2), "x float32"),
        ("hf:bert-tiny", Signature((TensorSpec("x", "float32", (-1, 3, 9, 9)),), 2), "an image"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(spec, given, message):
    with pytest.raises(ModelError, match=message):
        models.load(spec, signature=given)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownName, match="hf:bert-mini"):
        models.load("hf:bert-mimi")
    with pytest.raises(ModelError, match="no published weights"):
        models.load("hf:bert-tiny", pretrained=True)


def test_saved_and_opened_it_is_the_same(tmp_path):
    module = models.load("hf:bert-2x64", signature=BOTH)
    models.save(module, tmp_path / "saved")
    opened = models.open(tmp_path / "saved")
    torch.testing.assert_close(opened(*tokens()), module(*tokens()), rtol=0, atol=0)
    assert opened.fettle_origin == module.fettle_origin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model as its makers would publish it."""
    path = tmp_path_factory.mktemp("hf") / "published"
    models.load("hf:bert-2x64", signature=BOTH, seed=7).network.save_pretrained(path)
    return path


def test_a_folder_brings_its_weights_and_is_not_needed_later(folder, tmp_path):
    there = shutil.copytree(folder, tmp_path / "there")
    module = models.load(f"hf:{there}", signature=BOTH)
    models.save(module, tmp_path / "saved")
    shutil.rmtree(there)
    wanted = models.load("hf:bert-2x64", signature=BOTH, seed=7)(*tokens())
    torch.testing.assert_close(module(*tokens()), wanted, rtol=0, atol=0)
    torch.testing.assert_close(models.open(tmp_path / "saved")(*tokens()), wanted, rtol=0, atol=0)


def test_folders_that_can_not_be_used(folder, tmp_path):
    with pytest.raises(ModelError, match="for 5 classes"):
        models.load(f"hf:{folder}", signature=signature(*NAMES[:2], classes=5))
    with pytest.raises(ModelError, match="knows 40 token ids, the data has 41"):
        models.load(f"hf:{folder}", signature=signature(*NAMES[:2], vocabulary=41))
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    (tmp_path / "empty").mkdir()
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x08")
    for bad in (pickled, tmp_path / "empty", broken):
        with pytest.raises(ModelError, match="no text classifier"):
            models.load(f"hf:{bad}", signature=BOTH)


def test_code_that_comes_with_a_model_never_runs(folder, tmp_path):
    trap = shutil.copytree(folder, tmp_path / "trap")
    config = json.loads((trap / "config.json").read_text())
    entry = {"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model"}
    (trap / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "auto_map": entry})
    )
    (trap / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="code of its own"):
        models.load(f"hf:{trap}", signature=BOTH)
    assert not (tmp_path / "ran").exists()


def test_a_hub_out_of_reach_is_said_at_once(monkeypatch):
    import huggingface_hub

    asked = []

    def refuse(self, name, timeout):
        asked.append(timeout)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(MissingError, match="hf download fettle-test/absent") as caught:
        models.load("hf:fettle-test/absent", signature=BOTH)
    assert caught.value.exit_code == 3
    assert asked == [_hf_hub._SECONDS]


def test_engines_compute_what_torch_does_at_any_length(tmp_path):
    rng = np.random.default_rng(0)
    x = {"input_ids": rng.integers(1, 40, (60, 12)), "attention_mask": np.ones((60, 12), np.int64)}
    x["attention_mask"][:, 8:] = rng.integers(0, 2, (60, 4))
    task = FreeLength(x)
    module = models.load("hf:bert-2x64", signature=signature(*NAMES[:2], vocabulary=40))
    export_onnx(module, task, tmp_path / "out")
    for rows, length in ((1, 12), (3, 20), (5, 2)):
        ids, mask = tokens(rows, length)
        with torch.no_grad():
            wanted = module(ids, mask).numpy()
        for name in ("onnxruntime", "openvino"):
            session = RUNTIMES.make(name, threads=1).build(tmp_path / "out" / "model.onnx")
            found = session.run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
            np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)
            session.close()


class FreeLength(Classification):
    """Tokens whose task leaves the length free."""

    def __init__(self, x):
        made = Classification.from_arrays(x, np.arange(60) % 3, classes=3)
        super().__init__(made.data)

    @property
    def signature(self):
        specs = (TensorSpec(s.name, s.dtype, (-1, -1)) for s in super().signature.inputs)
        return Signature(tuple(specs), 3, 40)


def test_tokens_fit_every_family_that_takes_them():
    task = tasks.load("tokens:16:4:100")
    inputs = [torch.from_numpy(a) for a in task.example_inputs(3).values()]
    for spec in ("hf:bert-2x64", "rnn:gru16"):
        assert models.load(spec, signature=task.signature)(*inputs).shape == (3, 4)
