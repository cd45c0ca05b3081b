"""Which engines `all` means, in which forms."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from fettle.search.bench import BenchSetting, _runtimes
from fettle.search.subject import Subject, resolve

LAST = "pytorch(layout='channels_last')"


def subject(tmp_path, module=None, quantized=False):
    return Subject("m", tmp_path / "m.onnx", {"x": np.zeros((1, 3))}, quantized, module)


def forms(given, runtimes=("all",)):
    found = _runtimes(BenchSetting(runtimes), given, threads=0)
    return [str(runtime) for runtime in found]


def test_a_file_goes_to_what_takes_files(tmp_path):
    found = forms(subject(tmp_path))
    assert {"onnxruntime", "openvino"} <= set(found)
    assert not [name for name in found if "pytorch" in name]


@pytest.mark.parametrize(
    ("module", "offered"),
    [(nn.Conv2d(3, 8, 3), True), (nn.Linear(3, 8), False), (nn.Conv1d(3, 8, 3), False)],
)
def test_a_layout_is_offered_to_convolutions_of_images(tmp_path, module, offered):
    found = forms(subject(tmp_path, module))
    assert "pytorch" in found
    assert (LAST in found) is offered
    assert not [name for name in found if "aot" in name]


def test_what_builds_slowly_comes_on_request(tmp_path):
    asked = ("pytorch(mode='aot')", "pytorch(mode='compiled', layout='channels_last')")
    assert forms(subject(tmp_path, nn.Linear(3, 8)), asked) == list(asked)


def test_a_quantized_model_has_no_other_float(tmp_path):
    assert not [name for name in forms(subject(tmp_path, quantized=True)) if "bf16" in name]


def test_pairs_are_the_only_ones(tmp_path):
    setting = BenchSetting(pairs=frozenset({("m", "onnxruntime"), ("n", "openvino")}))
    given = subject(tmp_path)
    assert [str(r) for r in _runtimes(setting, given, 0)] == ["onnxruntime"]
    assert [str(r) for r in _runtimes(setting, replace(given, name="n"), 0)] == ["openvino"]


def test_the_export_of_a_torch_model_has_a_name_of_its_own(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def net(classes, in_channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, classes))\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    spec = f"{tmp_path / 'nets.py'}:net"
    found = resolve(spec, scratch, data="digits").export
    assert found == ("fettle", "export", "--model", spec, "--data", "digits", "--out",
                     "nets.py_net.onnx")  # fmt: skip
