"""Whole rollouts: real bundles, a real service, a real log."""

import asyncio
import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from fettle.core.bundle import write_bundle
from fettle.core.errors import BundleError, InputError
from fettle.monitor.log import PredictionLog, open_log
from fettle.serve.protocol.request import InferRequest
from fettle.serve.repository import Repository
from fettle.serve.rollout.assembly import rollout_of
from fettle.serve.rollout.settings import RolloutSettings
from fettle.serve.service import Meta, Service
from fettle.serve.settings import Settings
from fettle.testing import sample

SETTINGS = Settings(threads=1, drain_seconds=5, allow_unproven=True)


@pytest.fixture(scope="module")
def twin(tmp_path_factory, make_bundle):
    """Another bundle of the same model."""
    return make_bundle(tmp_path_factory.mktemp("twin") / "twin", recipe="@ onnxruntime(threads=2)")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, proven):
    """A bundle that says the opposite."""
    folder = tmp_path_factory.mktemp("damaged") / "files"
    folder.mkdir()
    model = onnx.load(proven.model_path)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["inner"], [output.name]))
    onnx.save(model, folder / "model.onnx")
    inputs, outputs = proven.golden()
    named = {f"input/{k}": v for k, v in inputs.items()}
    named |= {f"output/{k}": v for k, v in outputs.items()}
    for file in ("golden.npz", "reference.npz"):
        np.savez(folder / file, allow_pickle=False, **named)
    return write_bundle(folder.parent / "bad", replace(proven.manifest, recipe="@ bad"), folder)


def running(bundle, wanted, work, record=None):
    """Run `work(service, rollout)` beside a rollout that is ready; return what it returns."""

    async def whole():
        repository = Repository(SETTINGS)
        repository.add("digits", "1", bundle.path)
        rollout = rollout_of(wanted, SETTINGS, repository, record)
        service = Service(repository, SETTINGS, rollout.route, rollout.observers)
        await repository.start()
        try:
            await rollout.start()
            return await work(service, rollout)
        finally:
            await repository.close()
            service.close()
            await rollout.close()

    return asyncio.run(whole())


async def ask(service, count, start=0):
    """Let callers ask with examples of their own; return what they were answered."""
    inputs = sample().inputs(16)
    answers = []
    for number in range(start, start + count):
        rows = {k: v[number % 16 : number % 16 + 1] for k, v in inputs.items()}
        now = time.monotonic()
        request = InferRequest(f"r{number}", rows)
        meta = Meta(now, now + 10, key=f"user-{number}")
        answers.append(await service.infer("digits", None, request, meta))
    return answers


async def until(what, seconds=120.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.01)


def test_nothing_asked_changes_nothing(proven):
    async def work(service, rollout):
        assert len(await ask(service, 2)) == 2
        return rollout.route, rollout.observers, rollout.status(), rollout.families()

    assert running(proven, RolloutSettings(), work) == (None, [], {}, [])


def test_a_shadow_rides_along_and_is_logged(proven, twin, tmp_path):
    wanted = RolloutSettings(shadow=str(twin.path), shadow_sample=1.0, shadow_busy=1.0)

    async def work(service, rollout):
        await ask(service, 30)
        await until(lambda: rollout.status()["shadow"]["done"] == 30)
        return rollout.status()["shadow"], rollout.families()

    with PredictionLog(tmp_path / "log.db") as log:
        status, families = running(proven, wanted, work, log.tell)
    (compared,) = status["compared"]
    assert (compared["n"], compared["disagreement"]["estimate"]) == (30, 0.0)
    assert compared["accuracy_loss_at_most"] < 0.25
    assert any(family.name == "fettle_shadow_accuracy_loss_bound" for family in families)
    rows = list(open_log(tmp_path / "log.db").rows())
    assert {row.route for row in rows} == {"shadow"}
    assert {row.id for row in rows} == {f"r{number}" for number in range(30)}
    assert {row.agreement for row in rows} == {1.0}


def test_a_shadow_that_hangs_hurts_no_request(proven, twin):
    wanted = RolloutSettings(shadow=str(twin.path), shadow_sample=1.0, shadow_busy=1.0)
    go = threading.Event()

    def hang(inputs):
        go.wait(30)
        raise RuntimeError("it never came back")

    async def work(service, rollout):
        arm = rollout.arms["shadow"].repository
        model = arm.find("digits").model
        session, hanging = model.session, SimpleNamespace(run=hang, close=lambda: None)
        object.__setattr__(model, "session", hanging)
        answers = await ask(service, 100)
        status = rollout.status()["shadow"]
        go.set()
        object.__setattr__(model, "session", session)
        return len(answers), status

    answered, status = running(proven, wanted, work)
    assert answered == 100
    assert status["done"] == 0
    assert status["taken"] + status["dropped"] == 100
    assert status["dropped"] >= 100 - 65


def test_a_damaged_bundle_is_told_by_its_shadow(damaged, proven):
    wanted = RolloutSettings(shadow=f"digits={proven.path}", shadow_sample=1.0, shadow_busy=1.0)

    async def work(service, rollout):
        await ask(service, 60)
        await until(lambda: rollout.status()["shadow"]["done"] == 60)
        return rollout.status()["shadow"]["compared"][0]

    assert running(damaged, wanted, work)["disagreement"]["low"] > 0.5


def test_a_b_answers_its_share(proven, damaged):
    wanted = RolloutSettings(ab=str(damaged.path), split=0.5)

    async def work(service, rollout):
        first, again = await ask(service, 60), await ask(service, 60)
        given = [[next(iter(a.outputs.values())) for a in each] for each in (first, again)]
        return *given, rollout.status()["ab"]

    first, again, status = running(proven, wanted, work)
    np.testing.assert_array_equal(first, again)  # who asks again is answered by the same
    (name,) = proven.golden()[1]
    expected = [proven.golden()[1][name][n % 16 : n % 16 + 1] for n in range(60)]
    right = [np.allclose(a, b, atol=1e-3) for a, b in zip(first, expected, strict=True)]
    wrong = [np.allclose(a, -b, atol=1e-3) for a, b in zip(first, expected, strict=True)]
    assert all(np.array(right) ^ np.array(wrong))
    assert 15 < sum(wrong) < 45
    assert status["answered"] == {"a": 2 * sum(right), "b": 2 * sum(wrong)}
    assert (status["ready"], status["split"], len(status["bundle"])) == (True, 0.5, 16)


def test_a_damaged_canary_is_rolled_back_before_it_answers_anyone(proven, damaged, tmp_path):
    wanted = RolloutSettings(
        canary=str(damaged.path),
        canary_steps="0,0.5",
        shadow_sample=1.0,
        shadow_busy=1.0,
        decisions=tmp_path / "decisions.jsonl",
    )

    async def work(service, rollout):
        await ask(service, 60)
        await until(lambda: rollout.status()["canary"]["state"] == "rolled back")
        return dict(rollout.route._split.answered)

    assert running(proven, wanted, work) == {"primary": 60}
    lines = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert [line["decision"] for line in lines] == ["start", "rollback"]
    found = lines[1]["evidence"]["disagreement"]
    assert found["low"] > found["limit"]


def test_a_good_canary_takes_over(proven, twin):
    wanted = RolloutSettings(
        canary=str(twin.path),
        canary_steps="0.5",
        canary_disagreement=0.2,
        canary_errors=0.2,
        shadow_sample=1.0,
        shadow_busy=1.0,
    )

    async def work(service, rollout):
        await ask(service, 300)
        await until(lambda: rollout.status()["canary"]["state"] == "complete")
        before = rollout.route._split.answered["canary"]
        await ask(service, 10, start=300)
        (counted,) = service.statistics("digits")["model_stats"]
        return before, rollout.route._split.answered["canary"], counted["inference_count"]

    before, after, counted = running(proven, wanted, work)
    assert after == before + 10  # the primary answers nobody any more
    assert counted == 310  # whoever answers, the model's numbers go on


def test_folders_are_followed(proven, twin, make_bundle, tmp_path):
    path = make_bundle(tmp_path / "b", recipe="@ first").path
    wanted = RolloutSettings(shadow=str(path), shadow_sample=1.0, shadow_busy=1.0)

    async def work(service, rollout):
        await ask(service, 3)
        await until(lambda: rollout.status()["shadow"]["done"] == 3)
        make_bundle(tmp_path / "other", recipe="@ second")
        path.rename(tmp_path / "gone")
        (tmp_path / "other").rename(path)
        await rollout.reload()
        await ask(service, 3)
        await until(lambda: rollout.status()["shadow"]["done"] == 6)
        return [row["n"] for row in rollout.status()["shadow"]["compared"]]

    assert running(proven, wanted, work) == [3, 3]


@pytest.mark.parametrize("text", ["other={}", "nobody:2={}"])
def test_a_model_that_is_not_served_has_no_rollout(proven, text):
    repository = Repository(SETTINGS)
    repository.add("digits", "1", proven.path)
    with pytest.raises(InputError, match="one of the models digits"):
        rollout_of(RolloutSettings(shadow=text.format(proven.path)), SETTINGS, repository)


def test_of_several_models_one_is_named(proven, twin):
    repository = Repository(SETTINGS)
    repository.add("digits", "1", proven.path)
    repository.add("letters", "1", proven.path)
    with pytest.raises(InputError, match="digits, letters"):
        rollout_of(RolloutSettings(ab=str(twin.path)), SETTINGS, repository)


def test_what_is_no_bundle_is_said(proven, tmp_path):
    async def work(service, rollout):
        raise AssertionError

    with pytest.raises(BundleError):
        running(proven, RolloutSettings(ab=str(tmp_path)), work)


def test_what_takes_something_else_is_refused(proven, make_bundle, tmp_path):
    labels = tuple("abcdefghij")[: proven.manifest.outputs[0].shape[-1]]
    one = make_bundle(tmp_path / "one", labels=labels)
    other = make_bundle(tmp_path / "two", labels=labels[::-1])

    async def work(service, rollout):
        raise AssertionError

    with pytest.raises(InputError, match="takes and gives the same as `digits`"):
        running(one, RolloutSettings(ab=str(other.path)), work)
