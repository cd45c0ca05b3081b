"""The repository: loading, swapping without a lost request, and what may be loaded at all."""

import asyncio
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from fettle.core.bundle import write_manifest
from fettle.core.errors import BundleError, InputError
from fettle.serve.errors import BadRequest, Conflict, NotFound, NotReady
from fettle.serve.repository import Repository
from fettle.serve.settings import Settings

SETTINGS = Settings(threads=1, drain_seconds=5)


def using(work, *given):
    """Run `work(repository)` on a repository of what a command line would give."""

    async def whole():
        repository = Repository(SETTINGS)
        for text in given:
            repository.give(str(text))
        await repository.start()
        try:
            return await work(repository)
        finally:
            await repository.close()

    return asyncio.run(whole())


@pytest.fixture
def bundle(make_bundle, tmp_path):
    return make_bundle(tmp_path / "digits")


def renew(bundle, **changes):
    """Replace the bundle's manifest, as a new bundle in its place would."""
    write_manifest(bundle.path, replace(bundle.manifest, **changes))
    later = time.time() + 5  # so that clocks of coarse file systems tell them apart
    os.utime(bundle.path / "manifest.json", (later, later))


def test_names_come_from_folders_or_from_who_gives_them(bundle):
    async def names(repository):
        return [(row["name"], row["version"]) for row in repository.index()]

    assert using(names, bundle.path) == [("digits", "1")]
    assert using(names, f"small={bundle.path}") == [("small", "1")]
    assert using(names, f"small:7={bundle.path}") == [("small", "7")]


def test_the_highest_version_answers_for_the_name(bundle):
    async def versions(repository):
        assert repository.versions("m") == ["2", "10"]
        assert repository.find("m", "2").model.version == "2"
        return repository.find("m").model.version

    assert using(versions, f"m:2={bundle.path}", f"m:10={bundle.path}") == "10"


def test_a_folder_of_several(make_bundle, tmp_path):
    make_bundle(tmp_path / "all" / "a")
    make_bundle(tmp_path / "all" / "b" / "4")
    shutil.rmtree(tmp_path / "all" / "a-files")
    shutil.rmtree(tmp_path / "all" / "b" / "4-files")

    async def names(repository):
        return [(row["name"], row["version"]) for row in repository.index()]

    assert using(names, tmp_path / "all") == [("a", "1"), ("b", "4")]


def test_what_is_given_has_to_be_there_once(bundle, tmp_path):
    repository = Repository(SETTINGS)
    with pytest.raises(BundleError, match="was expected at"):
        repository.give(str(tmp_path / "nothing"))
    for wrong in (f"a/b={bundle.path}", f"m:x={bundle.path}", f"m:0={bundle.path}"):
        with pytest.raises((InputError, BundleError)):
            repository.give(wrong)
    repository.give(f"m={bundle.path}")
    with pytest.raises(Conflict, match="already"):
        repository.give(f"m={bundle.path}")


def test_only_names_are_taken_from_the_network_never_paths(bundle):
    async def work(repository):
        for name in (str(bundle.path), "../digits", "digits/../digits"):
            with pytest.raises(NotFound):
                await repository.load(name)
        with pytest.raises(BadRequest):
            await repository.load("digits", {"config": "{}"})

    using(work, bundle.path)


def test_a_model_that_loads_answers_503_and_then_its_reason(bundle):
    renew(bundle, verdict=None)

    async def whole():
        repository = Repository(SETTINGS)
        repository.give(str(bundle.path))
        with pytest.raises(NotReady):
            repository.find("digits")
        assert not repository.ready()
        with pytest.raises(Exception, match="--allow-unproven"):
            await repository.start()
        (row,) = repository.index()
        await repository.close()
        return row

    row = asyncio.run(whole())
    assert row["state"] == "UNAVAILABLE"
    assert "--allow-unproven" in row["reason"]


def test_reloading_loses_no_request(bundle):
    inputs, outputs = bundle.golden()
    one = {name: array[:1] for name, array in inputs.items()}
    name = next(iter(outputs))

    async def work(repository):
        shas, stop = set(), False

        async def ask():
            while not stop:
                served = repository.find("digits")
                answer = await served.batcher.infer(one, time.monotonic() + 20)
                np.testing.assert_allclose(
                    answer.outputs[name], outputs[name][:1], rtol=1e-3, atol=1e-3
                )
                shas.add(served.model.sha)

        askers = [asyncio.create_task(ask()) for _ in range(4)]
        for recipe in ("first @ onnxruntime", "second @ onnxruntime"):
            await asyncio.sleep(0.05)
            renew(bundle, recipe=recipe)
            await repository.reload()
        await asyncio.sleep(0.05)
        stop = True
        await asyncio.gather(*askers)
        return shas

    assert len(using(work, bundle.path)) == 3


def test_reloading_what_has_not_changed_does_nothing(bundle):
    async def work(repository):
        before = repository.find("digits")
        await repository.reload()
        return repository.find("digits") is before

    assert using(work, bundle.path)


def test_a_bundle_that_fails_leaves_the_old_one_in_its_place(bundle):
    async def work(repository):
        before = repository.find("digits")
        renew(bundle, verdict=None)
        await repository.reload()
        with pytest.raises(Conflict, match="--allow-unproven"):
            await repository.load("digits")
        (row,) = repository.index()
        return repository.find("digits") is before, row

    same, row = using(work, bundle.path)
    assert same
    assert row["state"] == "READY"
    assert "--allow-unproven" in row["reason"]


def test_unloaded_models_are_not_reloaded_until_they_are_asked_for(bundle):
    async def work(repository):
        await repository.unload("digits")
        await repository.reload()
        with pytest.raises(NotReady):
            repository.find("digits")
        await repository.load("digits")
        return repository.find("digits").state

    assert using(work, bundle.path) == "READY"


def test_statistics_outlive_a_reload(bundle):
    async def work(repository):
        repository.find("digits").statistics.failed(1.0)
        renew(bundle, recipe="other @ onnxruntime")
        await repository.reload()
        return repository.find("digits").statistics.fail.count

    assert using(work, bundle.path) == 1


def test_the_watch_loads_what_changed_and_then_stayed(bundle):
    async def work(repository):
        before = repository.find("digits").model.sha
        watching = asyncio.create_task(repository.watch(0.02))
        renew(bundle, recipe="other @ onnxruntime")
        until = time.monotonic() + 20
        while repository.find("digits").model.sha == before and time.monotonic() < until:
            await asyncio.sleep(0.02)
        watching.cancel()
        return before != repository.find("digits").model.sha

    assert using(work, bundle.path)
