from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from fettle import models
from fettle.core.arrays import TensorSpec
from fettle.core.errors import MissingError, ModelError, UnknownName
from fettle.core.signature import Signature

SIGNATURE = Signature((TensorSpec("input", "float32", (-1, 1, 32, 32)),), 5)


def test_importing_models_needs_no_torch():
    code = (
        "import sys; from fettle import models; models.is_onnx('a.onnx');"
        "print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_without_torch_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from fettle import models\n"
        "from fettle.core.errors import MissingError\n"
        "try: models.load\n"
        "except MissingError as error: print(error.mend)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 'fettle[torch]'"


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "torchvision:resnet18"])
def test_torchvision_takes_the_tasks_classes_and_channels(spec):
    module = models.load(spec, signature=SIGNATURE)
    assert module(torch.zeros(2, 1, 64, 64)).shape == (2, 5)
    assert models.origin_of(module).spec == spec


@pytest.mark.parametrize(
    ("spec", "size"), [("timm:mobilenetv3_small_050", 32), ("timm:vit_tiny_patch16_224", 32)]
)
def test_timm_takes_the_tasks_classes_channels_and_size(spec, size):
    module = models.load(spec, signature=SIGNATURE)
    assert module(torch.zeros(2, 1, size, size)).shape == (2, 5)


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("torchvision:resnet81", "torchvision:resnet18"),
        ("timm:resnet81", "timm:resnet"),
        ("torchvison:resnet18", "torchvision:"),
        ("cifer:resnet20", "cifar:"),
        ("resnet20", "family"),
    ],
)
def test_unknown_names_name_the_nearest(spec, near):
    with pytest.raises(UnknownName, match=near):
        models.load(spec)


def test_a_missing_package_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setattr("fettle.models._load._exists", lambda name: False)
    with pytest.raises(MissingError, match=r"pip install 'fettle\[vision\]'"):
        models.load("timm:resnet18")


def test_pretrained_weights_with_another_head_are_refused():
    with pytest.raises(ModelError, match="1000"):
        models.load("torchvision:resnet18", signature=SIGNATURE, pretrained=True)


def test_what_has_no_published_weights_says_so():
    with pytest.raises(ModelError, match="no published weights"):
        models.load("cifar:resnet20", pretrained=True)


def test_an_onnx_file_is_no_torch_module():
    with pytest.raises(ModelError, match="ONNX graph"):
        models.load("model.onnx")


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\n"
        "def make(classes=3, in_chans=2):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 4, classes))\n"
        "def broken():\n    raise RuntimeError('out of cheese')\n"
        "def text():\n    return 'no module'\n"
    )
    return path


def test_a_users_function_gets_what_it_asks_for(script):
    module = models.load(f"{script}:make", signature=SIGNATURE)
    assert module[1].weight.shape == (5, 4)
    again = models.rebuild(models.origin_of(module))
    assert again[1].weight.shape == (5, 4)
    assert models.load(f"{script}:make")[1].weight.shape == (3, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "RuntimeError: out of cheese"),
        ("text", "torch.nn.Module, got str"),
        ("absent", "no function `absent`; it has: broken, make, text"),
    ],
)
def test_a_users_broken_function_is_explained(script, name, message):
    with pytest.raises(ModelError, match=message):
        models.load(f"{script}:{name}")


def test_a_missing_or_broken_file_is_explained(tmp_path):
    with pytest.raises(ModelError, match="there is none"):
        models.load(f"{tmp_path / 'none.py'}:make")
    (tmp_path / "bad.py").write_text("import nothing_of_this_name")
    with pytest.raises(ModelError, match="nothing_of_this_name"):
        models.load(f"{tmp_path / 'bad.py'}:make")


def test_a_function_of_an_installed_module():
    assert isinstance(models.load("torch.nn:Identity"), nn.Identity)
