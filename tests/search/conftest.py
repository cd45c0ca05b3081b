import json
from dataclasses import dataclass
from typing import Annotated

import pytest
import torch
from torch import nn

from fettle import export
from fettle.compress._technique import Technique
from fettle.core.context import Context
from fettle.core.knobs import Range
from fettle.search import Source, Workshop
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.testing.fakes import TinyTask

LINEAR = """
from torch import nn

def net(classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, classes))
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class Scale(Technique):
    """Multiplies every parameter: cheap, and seen in the weights."""

    by: Annotated[float, Range(-10, 10), "factor"] = 1.0

    def apply(self, model, task):
        done.append(str(self))
        if self.by < 0:
            raise KeyboardInterrupt
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self.by)
        return model


@dataclass(frozen=True, kw_only=True)
class Learn(Technique):
    """Learns from a teacher."""

    takes_teacher = True

    def apply(self, model, task):
        done.append("Learn from " + ("itself" if self.context.teacher is None else "a teacher"))
        return model


@dataclass(frozen=True, kw_only=True)
class Convert(Technique):
    """A last step, whose result is kept by the export alone; it saves its state on the way."""

    final = True

    def apply(self, model, task):
        done.append(str(self))
        self.context.checkpoints.mkdir(parents=True)
        return model


done = []  # what the techniques above did, in order


@pytest.fixture
def work(monkeypatch):
    """What was really done: steps, exports and trainings, in order."""
    from fettle import train

    done.clear()

    def export_onnx(module, task, folder, name="model.onnx"):
        done.append("export")
        folder.mkdir()
        total = sum(float(p.detach().sum()) for p in module.parameters())
        (folder / name).write_text(json.dumps(total))
        return export.Parity(0.0, 0.0, 1.0, 1)

    def fit(module, task, plan, context):
        done.append(f"train {plan.epochs}")

    monkeypatch.setattr(export, "export_onnx", export_onnx)
    monkeypatch.setattr(train, "fit", fit)
    return done


@pytest.fixture
def scale():
    return Scale


@pytest.fixture
def learn():
    return Learn


@pytest.fixture
def convert():
    return Convert


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out", Journal(tmp_path / "out" / "journal.jsonl"))


@pytest.fixture
def linear(tmp_path):
    """The specification of a linear model in a file of its own."""
    (tmp_path / "linear.py").write_text(LINEAR)
    return f"{tmp_path / 'linear.py'}:net"


@pytest.fixture
def workshop(linear, store):
    """Build a workshop whose stages lie in one store, whatever else differs."""

    def build(spec=linear, task=None, seed=0, teacher=None, **source):
        task = task or TinyTask()
        return Workshop(Source(spec, **source), task, store, Context(seed=seed), teacher)

    return build


@pytest.fixture
def save_safely():
    """Write weights of the linear model to a file, all of one value."""

    def save(path, value):
        from safetensors.torch import save_file

        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        state = {name: torch.full_like(p, value) for name, p in net.state_dict().items()}
        save_file(state, path)
        return str(path)

    return save
