"""`fettle deploy`: one sub-command a way, each with its knobs as options."""

import shutil
from dataclasses import replace

import pytest

from fettle.core.bundle import Bundle, write_manifest


@pytest.fixture
def bundle(finished, tmp_path):
    path = tmp_path / "best"
    shutil.copytree(finished / "best", path)
    manifest = Bundle.open(path).manifest
    write_manifest(path, replace(manifest, verdict={**manifest.verdict, "outcome": "pass"}))
    return path


@pytest.mark.parametrize(("way", "file"), [("triton", "m/config.pbtxt"), ("kserve", "Dockerfile")])
def test_a_studys_bundle_is_deployed(bundle, fettle, tmp_path, way, file):
    said = fettle("deploy", way, bundle, "--out", tmp_path / way, "--name", "m", "--json")
    assert said.code == 0, said
    assert file in said.json["files"]
    assert (tmp_path / way / file).is_file()
    assert said.json["commands"]


def test_people_are_told_what_comes_next(bundle, fettle, tmp_path):
    said = fettle("deploy", "triton", bundle, "--out", tmp_path / "x", "--instances", 2)
    assert said.code == 0
    assert "docker run" in said.out
    assert "count: 2" in (tmp_path / "x" / "model" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["deploy"], "WAY"),
        (["deploy", "heroku", "."], "heroku"),
        (["deploy", "triton", ".", "--out", "x"], "no bundle"),
        (["deploy", "triton", "."], "--out"),
    ],
)
def test_wrong_words_are_refused(refused, words, needle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(words, needle)
