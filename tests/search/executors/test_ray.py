"""A real Ray cluster of two nodes on this machine: the study of one process, whatever is lost."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fettle import tasks
from fettle.core.context import Context
from fettle.core.errors import MissingError
from fettle.core.progress import Silent
from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget
from fettle.search import Candidate, Setting, Source
from fettle.search.compress import study
from fettle.search.executors import Job, Unmanned, executor
from fettle.search.executors._transport import Foreign
from fettle.train import FitPlan

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # a test takes a cluster, which takes seconds to begin

TARGET = {"target": 1}
EPOCHS = 12
SOURCE = Source("cifar:resnet8x0.5", plan=FitPlan(epochs=EPOCHS, lr=0.1))
# half of the weights, or nearly all: nobody's clock decides which of the two can win
LINES = ["prune.magnitude(sparsity=0.5, epochs=2)", "prune.magnitude(sparsity=0.99, epochs=1)"]
SETTING = Setting(Budget(max_drop=0.3), target=("onnxruntime",), batch=8, threads=1, seconds=0.3,
                  only_given=True, data="npz:digits.npz")  # fmt: skip


@pytest.fixture
def cluster(monkeypatch):
    """A cluster whose head is the target; it begins without another node."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Cluster(initialize_head=True, head_node_args={
        "num_cpus": 1, "resources": TARGET, "include_dashboard": False})  # fmt: skip
    yield made
    ray.shutdown()
    made.shutdown()


class Watching(Silent):
    """Calls `act` once, on another thread, when a line is said that begins so."""

    def __init__(self, start, act):
        self.start, self.act, self.lines = start, act, []

    def say(self, message):
        self.lines.append(message)
        if self.start and message.startswith(self.start):
            self.start = ""
            threading.Thread(target=self.act).start()


def run(folder, where=None, progress=None):
    setting = replace(SETTING, executor=executor(where) if where else None)
    candidates = [Candidate(Recipe.parse(line)) for line in LINES]
    context = Context(progress=progress or Silent())
    return study(SOURCE, tasks.load(SETTING.data), candidates, folder, setting, context)


def test_a_study_outlives_a_node_and_tells_what_one_process_tells(
    cluster, told, tmp_path, capfd, monkeypatch
):
    digits = load_digits()
    np.savez(tmp_path / "digits.npz", x=digits.images.astype(np.uint8) * 15, y=digits.target)
    monkeypatch.chdir(tmp_path)  # nodes read the data under the name that it has here
    other = cluster.add_node(num_cpus=1)
    died = []

    def kill():
        time.sleep(1.5)  # the training is under way there: of two nodes it takes the other
        cluster.remove_node(other, allow_graceful=False)
        died.append(other)

    progress = Watching(f"train({SOURCE.spec}) on ray", kill)
    sent = run(tmp_path / "ray", f"ray://{cluster.address}", progress)
    assert died
    assert not capfd.readouterr().out
    again = [line for line in progress.lines if "begins again" in line]
    assert len(again) == 1
    assert f"`train({SOURCE.spec})` begins again, try 2 of 3" in again[0]
    own = run(tmp_path / "alone")
    assert told(tmp_path / "ray") == told(tmp_path / "alone")
    for name in ("verdict", "fingerprints"):
        assert sent[name] == own[name]
    assert [(r["recipe"], r["metric"], r["drop"]) for r in sent["trials"]] == [
        (r["recipe"], r["metric"], r["drop"]) for r in own["trials"]
    ]


@pytest.fixture
def crew(cluster):
    made = executor(f"ray://{cluster.address}").crew(lambda line: None)
    yield made
    made.close()


def job(name, do="supports", **options):
    return Job(name, name, {"do": do, "shop": {}, "with": {}}, **options)


def where(crew, ticket):
    return ticket.node and crew._nodes[ticket.node.id].is_target


def until(condition):
    while not condition():
        time.sleep(0.1)


@pytest.mark.timeout(120)
def test_measuring_is_for_the_target_and_one_job_a_node(cluster, crew):
    cluster.add_node(num_cpus=1)
    until(lambda: crew.wait([], 0) or len(crew._nodes) == 2)
    tickets = [crew.start(job(n, measures=n.startswith("m"))) for n in ("m1", "m2", "t1", "t2")]
    assert [where(crew, ticket) for ticket in tickets] == [True, None, False, None]
    assert crew.room == 1
    crew.cancel(tickets[1])
    crew.cancel(tickets[3])
    ended = []
    until(lambda: ended.extend(crew.wait([tickets[0], tickets[2]], 5)) or ended)
    with pytest.raises(Foreign, match=r"^'data'$"):
        crew.result(ended[0])


@pytest.mark.timeout(120)
def test_without_the_target_the_study_ends_and_says_how_to_go_on(cluster):
    target = cluster.add_node(num_cpus=1, resources={"board": 1})
    crew = executor(f"ray(address='{cluster.address}', tag='board')").crew(lambda line: None)
    cluster.remove_node(target, allow_graceful=False)
    until(lambda: crew._look() or len(crew._nodes) == 1)
    ticket = crew.start(job("m", measures=True))
    with pytest.raises(Unmanned, match=r"no node with the resource `board` is left.*same command"):
        crew.wait([ticket], 0)
    crew.close()


@pytest.mark.timeout(120)
def test_a_cluster_without_a_target_is_refused(cluster):
    with pytest.raises(MissingError, match=r"no node .* has the resource `orin`.*ray start"):
        executor(f"ray(address='{cluster.address}', tag='orin')").crew(lambda line: None)
    assert not ray.is_initialized()


@pytest.mark.timeout(120)
def test_a_job_whose_process_is_stopped_frees_its_node(crew, monkeypatch):
    from fettle.search.executors import _ray_worker

    monkeypatch.setattr(_ray_worker, "work", _sleep)
    ticket = crew.start(job("long", measures=True))
    time.sleep(1)
    crew.cancel(ticket)
    monkeypatch.undo()
    following = crew.start(job("next", measures=True))
    until(lambda: crew.wait([following], 5))
    with pytest.raises(Foreign, match=r"^'data'$"):  # it began, and finds no data in its order
        crew.result(following)


def _sleep(*_):
    time.sleep(600)
    return json.dumps({"value": None, "said": []}), {}
