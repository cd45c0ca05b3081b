"""`fettle check`: the checklist on a bundle, its exit codes, and what it leaves in the manifest."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fettle.core.bundle import Bundle, write_bundle, write_manifest

NAMES = ["verdict", "golden", "accuracy", "representative", "edges", "batches", "latency", "memory"]


@pytest.fixture
def bundle(finished, tmp_path):
    """A bundle of our own, its verdict said to be a pass whatever it was."""
    path = tmp_path / "best"
    shutil.copytree(finished / "best", path)
    manifest = Bundle.open(path).manifest
    write_manifest(path, replace(manifest, verdict={**manifest.verdict, "outcome": "pass"}))
    return path


@pytest.fixture
def check(fettle):
    def run(bundle, *more, data="digits"):
        few = ("--max-batch", 6, "--seconds", 0.5, "--threads", 1)
        return fettle("check", bundle, "--data", data, *few, *more)

    return run


def rows_of(said):
    return {row["name"]: row for row in said.json["checks"]}


def test_every_check_is_run_and_written_into_the_manifest(bundle, check):
    said = check(bundle, "--json")
    assert said.code == 0, said
    assert [row["name"] for row in said.json["checks"]][: len(NAMES)] == NAMES
    rows = rows_of(said)
    assert rows["batches"]["sizes"] == [1, 2, 4, 6]
    assert rows["accuracy"]["same_examples"] is True
    assert rows["memory"]["batch"] == 6
    assert set(said.json["latency_ms"]) == {"1", "2", "4", "6"}
    sealed = {row["name"]: row for row in Bundle.open(bundle).manifest.checks}
    assert json.dumps(sealed, sort_keys=True) == json.dumps(rows, sort_keys=True)


def test_checking_twice_keeps_one_row_a_check(bundle, check):
    check(bundle)
    said = check(bundle)
    assert said.code == 0
    names = [row["name"] for row in Bundle.open(bundle).manifest.checks]
    assert len(names) == len(set(names))
    assert "PASS" in said.out
    assert "p99" in said.out


def test_an_unproven_bundle_fails(finished, check, tmp_path):
    path = tmp_path / "best"
    shutil.copytree(finished / "best", path)
    manifest = Bundle.open(path).manifest
    write_manifest(path, replace(manifest, verdict={**manifest.verdict, "outcome": "inconclusive"}))
    said = check(path, "--json")
    assert said.code == 1
    assert rows_of(said)["verdict"]["passed"] is False


def test_golden_outputs_that_this_processor_does_not_give_fail(bundle, check, tmp_path):
    opened = Bundle.open(bundle)
    inputs, outputs = opened.golden()
    name, array = next(iter(outputs.items()))
    wrong = {f"output/{name}": np.roll(array, 1, axis=1)}
    folder = tmp_path / "files"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("manifest.json"))
    named = {f"input/{key}": value for key, value in inputs.items()}
    np.savez(folder / "golden.npz", allow_pickle=False, **named, **wrong)
    other = write_bundle(tmp_path / "wrong", opened.manifest, folder)
    said = check(other.path, "--json")
    assert said.code == 1
    assert rows_of(said)["golden"]["passed"] is False
    assert "computes something else" in rows_of(said)["golden"]["text"]


def test_a_lost_accuracy_fails_and_other_data_is_told_apart(bundle, check, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(40, 1, (600, 1, 8, 8)).astype(np.float32)
    data = tmp_path / "other.npz"
    np.savez(data, x=x, y=rng.integers(0, 10, 600))
    manifest = Bundle.open(bundle).manifest
    metric = {**manifest.measurements["baseline"]["metric"], "value": 0.99}
    baseline = {**manifest.measurements["baseline"], "metric": metric}
    budget = {**manifest.verdict["budget"], "max_drop": 0.01}
    claims = replace(
        manifest,
        verdict={**manifest.verdict, "budget": budget},
        measurements={**manifest.measurements, "baseline": baseline},
    )
    write_manifest(bundle, claims)
    rows = rows_of(check(bundle, "--json", data=f"npz:{data}"))
    assert rows["accuracy"]["passed"] is False
    assert rows["accuracy"]["same_examples"] is False
    assert rows["representative"]["passed"] is False


def test_limits_are_held(bundle, check):
    said = check(bundle, "--json", "--memory-mb", 1)
    assert said.code == 1
    assert rows_of(said)["memory"]["passed"] is False


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--max-batch", 0], "--max-batch"),
        (["--p99-ms", -1], "--p99-ms"),
        (["--data", "noise:3x32x32"], "expects"),
    ],
)
def test_wrong_arguments_are_refused(bundle, refused, words, needle):
    rest = [] if "--data" in words else ["--data", "digits"]
    refused(["check", bundle, "--seconds", 0.3, *rest, *words], needle)


def test_what_is_no_bundle_is_refused(refused, tmp_path):
    refused(["check", tmp_path, "--data", "digits"], "no bundle")
