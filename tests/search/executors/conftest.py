"""A crew in this process: real jobs, done by the node's own code, in folders of their own."""

import json
from dataclasses import replace

import pytest

from fettle import tasks
from fettle.core.context import Context
from fettle.core.machine import this_machine, versions
from fettle.core.recipe import Recipe
from fettle.search import Source, Workshop
from fettle.search._result import machine_json
from fettle.search._store import Store
from fettle.search.executors import Crew, Lost
from fettle.search.executors._node import Delivery, perform
from fettle.search.executors._remote import RemoteWorkshop
from fettle.search.executors._transport import error_json, error_of
from fettle.search.journal import Journal
from fettle.tasks import AUTO
from fettle.testing.fakes import Recorder

TIMES = {"time", "seconds"}


class Here(Crew):
    """Does jobs in this process, one a look; loses those whose names are in `losses`."""

    name = "here"

    def __init__(self, folder, room=1, tries=3):
        self.folder, self.room, self.tries = folder, room, tries
        self.losses, self.started, self.cancelled = [], [], []
        self.closed = False
        self.target = {
            "machine": this_machine().to_json(),
            "versions": versions(),
            "report": machine_json(),
        }

    def start(self, job):
        self.started.append(job)
        return len(self.started) - 1

    def wait(self, tickets, seconds):
        return tickets[:1]

    def result(self, ticket):
        job = self.started[ticket]
        if job.name in self.losses:
            self.losses.remove(job.name)
            raise Lost("a node is gone")
        needs = [Delivery(n.name, n.files is None, n.pack) for n in job.needs]
        try:
            # a job takes its way through text, as it does to another machine
            done = perform(json.loads(json.dumps(job.order)), self.folder, needs, job.files)
        except Exception as error:
            raise error_of(json.loads(json.dumps(error_json(error)))) from None
        return replace(done, value=json.loads(json.dumps(done.value)))

    def cancel(self, ticket):
        self.cancelled.append(self.started[ticket].name)

    def close(self):
        self.closed = True

    @property
    def names(self):
        return [job.name for job in self.started]


@pytest.fixture
def work(monkeypatch):
    """Export in no time, and let trainings pass: what is made is not the point."""
    from fettle import export, train

    def export_onnx(module, task, folder, name="model.onnx"):
        folder.mkdir()
        total = sum(float(p.detach().sum()) for p in module.parameters())
        (folder / name).write_text(json.dumps(total))
        return export.Parity(0.0, 0.0, 1.0, 1)

    monkeypatch.setattr(export, "export_onnx", export_onnx)
    monkeypatch.setattr(train, "fit", lambda *_: None)


@pytest.fixture
def crew(tmp_path):
    return Here(tmp_path / "node")


@pytest.fixture
def by_crew(crew, linear, tmp_path):
    """Build a workshop on digits whose stages the crew does."""

    def build(spec=linear, teacher=None, out="crew", **source):
        store = Store(tmp_path / out, Journal(tmp_path / out / "journal.jsonl"))
        return RemoteWorkshop(crew, "digits", AUTO, Source(spec, **source), tasks.load("digits"),
                              store, Context(), teacher)  # fmt: skip

    return build


@pytest.fixture
def alone(linear, tmp_path):
    """Build the same workshop, whose stages are done by itself."""

    def build(spec=linear, teacher=None, out="alone", **source):
        store = Store(tmp_path / out, Journal(tmp_path / out / "journal.jsonl"))
        return Workshop(Source(spec, **source), tasks.load("digits"), store, Context(), teacher)

    return build


@pytest.fixture
def told():
    """Read a folder's journal, without the times."""

    def read(folder):
        events = Journal(folder / "journal.jsonl").read()
        return [{k: v for k, v in event.items() if k not in TIMES} for event in events]

    return read


@pytest.fixture
def recipe():
    return Recipe.parse


@pytest.fixture
def recorder():
    return Recorder()
