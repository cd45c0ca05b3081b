"""What processes of their own tell of a row, and why they can't."""

from dataclasses import replace

import pytest
from torch import nn

from fettle.core.progress import Silent
from fettle.models import load, save_weights
from fettle.search.bench import BenchSetting, bench
from fettle.search.subject import resolve

QUICK = BenchSetting(("pytorch",), (1,), (1,), 0.2, roofline=False)
BIG = """
from torch import nn

def net(classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, SIZE), nn.Linear(SIZE, classes))
"""


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_the_memory_of_a_torch_module_is_that_of_its_own_process(tmp_path, scratch):
    """Of two modules that differ by 100 MB of weights, the processes differ by as much."""
    subjects = []
    for name, size in (("small", 1), ("big", 350_000)):
        file = tmp_path / f"{name}.py"
        file.write_text(BIG.replace("SIZE", str(size)))
        subject = resolve(f"{file}:net", scratch, data="digits")
        subjects.append(subject)
    weights = [sum(p.nbytes for p in subject.module.parameters()) for subject in subjects]
    small, big = bench(subjects, QUICK, Silent())["rows"]
    assert small["no_memory"] is big["no_memory"] is None
    assert small["resident_memory_bytes"] <= small["peak_memory_bytes"]
    more = big["resident_memory_bytes"] - small["resident_memory_bytes"]
    assert more == pytest.approx(weights[1] - weights[0], rel=0.2)


@pytest.mark.slow
def test_the_start_of_a_torch_module_with_weights(tmp_path, scratch):
    file = tmp_path / "w.safetensors"
    signature = resolve("cifar:resnet8x0.5", scratch, data="digits").source.signature
    save_weights(load("cifar:resnet8x0.5", signature=signature), file)
    subject = resolve("cifar:resnet8x0.5", scratch, weights=str(file), data="digits")
    (row,) = bench([subject], replace(QUICK, startup=True), Silent())["rows"]
    assert row["cold_start_ms"] > row["first_inference_ms"] > 0
    assert row["startup"]["build_ms"]["n"] == 3


def test_a_module_that_only_this_process_has_says_so(scratch):
    subject = resolve("cifar:resnet8x0.5", scratch, data="digits")
    here = replace(subject, module=nn.Flatten(), source=None)
    (row,) = bench([here], QUICK, Silent())["rows"]
    assert row["peak_memory_bytes"] is None
    assert "was made in this process" in row["no_memory"]


def test_why_the_other_process_failed(tmp_path, scratch):
    """A file that is gone by then."""
    file = tmp_path / "gone.py"
    file.write_text(BIG.replace("SIZE", "1"))
    subject = resolve(f"{file}:net", scratch, data="digits")
    file.unlink()
    (row,) = bench([subject], QUICK, Silent())["rows"]
    assert row["refused"] is None
    assert row["peak_memory_bytes"] is None
    assert "gone.py" in row["no_memory"]


def test_memory_is_not_asked_for(scratch):
    subject = resolve("cifar:resnet8x0.5", scratch, data="digits")
    (row,) = bench([subject], replace(QUICK, memory=False), Silent())["rows"]
    assert (row["peak_memory_bytes"], row["no_memory"]) == (None, None)
