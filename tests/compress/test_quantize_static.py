import numpy as np
import pytest
import torch
from torch import nn

from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.shelf import TECHNIQUES
from fettle.testing import Recorder, TinyTask, sample


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        y = self.linear(x.flatten(1))
        return y if x.sum() > 0 else -y


class Nothing(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4] * 2


def outputs(module, inputs):
    with torch.inference_mode():
        return module(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize("calibrator", ["mse", "minmax"])
def test_it_answers_as_the_float_model_does(calibrator):
    quantize = TECHNIQUES.make("quantize.static", calibrator=calibrator)
    found = outputs(quantize(sample().module, sample().task), sample().inputs()["input"])
    expected = sample().expected
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95
    assert np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()
    assert not np.array_equal(found, expected)


def test_calibration_stops_at_the_number_of_samples():
    recorder = Recorder()
    quantize = TECHNIQUES.make("quantize.static", samples=10, batch_size=4)
    quantize.within(Context(progress=recorder))(sample().module, sample().task)
    assert [(bar.title, bar.total) for bar in recorder.bars] == [("calibrate", 10)]
    assert 10 <= recorder.bars[0].done < 10 + 4


def test_only_calibration_data_is_read(monkeypatch):
    task, splits = TinyTask(), []
    batches = task.batches
    monkeypatch.setattr(
        task,
        "batches",
        lambda split, batch_size=256: splits.append(split) or batches(split, batch_size),
    )
    TECHNIQUES.make("quantize.static")(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), task)
    assert set(splits) == {"calibrate"}


def test_nothing_to_quantize_is_refused(tiny):
    with pytest.raises(ModelError, match="nothing to quantize"):
        TECHNIQUES.make("quantize.static")(Nothing(), tiny)


@pytest.mark.parametrize("name", ["quantize.static", "quantize.aware"])
def test_a_branch_on_data_is_refused_with_its_cause(tiny, name):
    with pytest.raises(ModelError) as caught:
        TECHNIQUES.make(name)(Branch(), tiny)
    assert "can't be captured as a graph" in str(caught.value)
    assert "\n" not in str(caught.value)
