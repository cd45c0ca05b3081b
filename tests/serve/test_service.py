"""The service: one `infer` for all protocols, and who is told of it."""

import asyncio
import time

import numpy as np
import pytest

from fettle.core.errors import FettleError
from fettle.monitor.prediction import OK
from fettle.serve.errors import BadRequest, Late, NotFound, NotReady
from fettle.serve.protocol.request import InferRequest, Wanted
from fettle.serve.repository import Repository
from fettle.serve.seams import Chosen
from fettle.serve.service import Meta, Service
from fettle.serve.settings import Settings

SETTINGS = Settings(threads=1, drain_seconds=5)


class Notebook:
    """An observer that keeps what it is told."""

    def __init__(self, wrong=False):
        self.rows, self.wrong = [], wrong

    def seen(self, prediction, inputs, outputs):
        if self.wrong:
            raise ValueError("an observer's own trouble")
        self.rows.append((prediction, inputs, outputs))


def meta(seconds=10.0, key=""):
    now = time.monotonic()
    return Meta(received=now, deadline=now + seconds, key=key)


def using(bundle, work, route=None, observers=()):
    """Run `work(service)` on a service of one bundle that is loaded; return what it returns."""

    async def whole():
        repository = Repository(SETTINGS)
        repository.add("digits", "1", bundle.path)
        service = Service(repository, SETTINGS, observers=observers)
        if route is not None:
            service.route = route(repository)
        await repository.start()
        try:
            return await work(service)
        finally:
            await repository.close()
            service.close()

    return asyncio.run(whole())


def asked(bundle, rows=1, **more):
    inputs, _ = bundle.golden()
    return InferRequest(more.pop("id", ""), {k: v[:rows] for k, v in inputs.items()}, **more)


def test_an_answer_is_the_model_s(proven):
    answer = using(proven, lambda s: s.infer("digits", None, asked(proven, 3, id="mine"), meta()))
    assert (answer.model, answer.version, answer.id) == ("digits", "1", "mine")
    for name, array in proven.golden()[1].items():
        np.testing.assert_allclose(answer.outputs[name], array[:3], rtol=1e-3, atol=1e-3)


def test_requests_without_an_id_get_one_of_their_own(proven):
    async def twice(service):
        return [await service.infer("digits", "1", asked(proven), meta()) for _ in range(2)]

    first, second = using(proven, twice)
    assert first.id != second.id
    assert len(first.id) > 8


def test_what_is_wanted_goes_back(proven):
    name = proven.manifest.outputs[0].name
    wanted = (Wanted(name, binary=True),)
    answer = using(proven, lambda s: s.infer("digits", None, asked(proven, outputs=wanted), meta()))
    assert answer.wanted == wanted


@pytest.mark.parametrize(
    ("name", "version", "kind"), [("other", None, NotFound), ("digits", "9", NotFound)]
)
def test_models_that_are_not_there(proven, name, version, kind):
    with pytest.raises(kind):
        using(proven, lambda s: s.infer(name, version, asked(proven), meta()))


def test_observers_are_told_of_answers_and_failures_but_not_of_any_name(proven):
    notebook = Notebook()

    async def work(service):
        await service.infer("digits", None, asked(proven, id="good"), meta(key="anna"))
        with pytest.raises(Late):
            await service.infer("digits", None, asked(proven, id="late"), meta(-1))
        with pytest.raises(NotFound):
            await service.infer("nobody", None, asked(proven, id="lost"), meta())
        return service.statistics("digits")["model_stats"][0]

    counted = using(proven, work, observers=[notebook])
    assert [(row.id, row.status) for row, _, _ in notebook.rows] == [("good", OK), ("late", "Late")]
    good, inputs, outputs = notebook.rows[0]
    assert (good.model, good.version, good.key, good.route) == ("digits", "1", "anna", "only")
    assert good.top == int(np.argmax(outputs[proven.manifest.outputs[0].name]))
    assert inputs.keys() == proven.golden()[0].keys()
    assert counted["inference_stats"]["success"]["count"] == 1
    assert counted["inference_stats"]["fail"]["count"] == 1


def test_an_observer_s_trouble_is_no_one_else_s(proven):
    bad, good = Notebook(wrong=True), Notebook()
    answer = using(
        proven,
        lambda s: s.infer("digits", None, asked(proven), meta()),
        observers=[bad, good],
    )
    assert answer.outputs
    assert len(good.rows) == 1


def test_one_who_hangs_up_is_counted(proven):
    notebook = Notebook()

    async def work(service):
        task = asyncio.ensure_future(service.infer("digits", None, asked(proven), meta()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    using(proven, work, observers=[notebook])
    assert [row.status for row, _, _ in notebook.rows] == ["CancelledError"]


def test_a_route_chooses_and_its_part_is_told(proven):
    class Half:
        def __init__(self, repository):
            self.repository = repository

        def choose(self, name, version, key, request):
            return Chosen(self.repository.find("digits", None), "b" if key else "a")

    notebook = Notebook()

    async def work(service):
        for key in ("", "anna"):
            await service.infer("whatever", None, asked(proven), meta(key=key))

    using(proven, work, Half, [notebook])
    assert [row.route for row, _, _ in notebook.rows] == ["a", "b"]


def test_questions_about_models(proven):
    async def work(service):
        assert service.live()
        assert service.ready()
        assert service.metadata()["name"] == "fettle"
        assert service.model_ready("digits")
        assert service.model_metadata("digits")["versions"] == ["1"]
        assert service.model_config("digits")["max_batch_size"] == 8
        assert [row["state"] for row in service.index(ready=True)] == ["READY"]
        assert len(service.statistics()["model_stats"]) == 1
        for question in (service.model_ready, service.model_metadata, service.statistics):
            with pytest.raises(NotFound):
                question("other")

    using(proven, work)


def test_unloading_and_loading_again(proven):
    async def work(service):
        await service.unload("digits")
        assert not service.model_ready("digits")
        assert service.index(ready=True) == []
        with pytest.raises(NotReady):
            await service.infer("digits", None, asked(proven), meta())
        with pytest.raises(BadRequest):
            await service.load("digits", {"config": "{}"})
        await service.load("digits")
        return await service.infer("digits", None, asked(proven), meta())

    assert using(proven, work).outputs


def test_what_can_not_be_loaded_is_told(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "best", verdict=None)
    with pytest.raises(FettleError, match="--allow-unproven"):
        using(bundle, lambda s: s.infer("digits", None, asked(bundle), meta()))
