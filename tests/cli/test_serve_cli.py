"""`fettle serve`: its options, what it refuses to start with, and one whole run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace

import pytest

from fettle.cli import build_parser
from fettle.cli.serve import rollout_of, settings_of
from fettle.core.bundle import Bundle, write_manifest
from fettle.core.errors import InputError, KnobError

TOKEN = "t" * 32


def parsed(*words):
    return settings_of(build_parser(["serve"]).parse_args(["serve", "bundle", *words]))


def test_every_option_reaches_the_settings(tmp_path):
    files = {name: tmp_path / name for name in ("tokens", "control")}
    files["tokens"].write_text(f"{TOKEN}\n{TOKEN[::-1]}2\n")
    files["control"].write_text("c" * 32)
    found = parsed(
        "--host", "::1", "--port", "0", "--queue", "9", "--deadline-seconds", "1.5",
        "--max-batch", "4", "--allow-unproven", "--no-access-log", "--insecure",
        "--log", "a.db", "--capsules", "dir", "--certificate", "c.pem", "--key", "k.pem",
        "--token-file", str(files["tokens"]), "--control-token-file", str(files["control"]),
    )  # fmt: skip
    assert (found.host, found.port, found.queue, found.deadline_seconds) == ("::1", 0, 9, 1.5)
    assert (found.max_batch, found.allow_unproven, found.access_log) == (4, True, False)
    assert (str(found.log), str(found.capsules), found.tls) == ("a.db", "dir", True)
    assert (found.tokens, found.control_tokens) == ((TOKEN, TOKEN + "2"), ("c" * 32,))


def test_without_options_it_keeps_to_this_machine():
    found = parsed()
    assert (found.host, found.port, found.max_batch, found.access_log) == (
        "127.0.0.1", 8000, None, True,
    )  # fmt: skip
    assert (found.tokens, found.insecure, found.allow_unproven) == ((), False, False)


def test_options_out_of_bounds_are_told():
    with pytest.raises(KnobError, match="port"):
        parsed("--port", "70000")
    with pytest.raises(InputError, match="belong together"):
        parsed("--key", "k.pem")


def test_what_rides_along_is_told_by_options(tmp_path):
    def riding(*words):
        return rollout_of(build_parser(["serve"]).parse_args(["serve", "bundle", *words]))

    assert not riding().wanted
    found = riding(
        "--shadow", "m=other", "--shadow-sample", "0.5", "--canary", "next", "--canary-steps",
        "0.2,0.6", "--canary-p99-ms", "20", "--decisions", "d.jsonl",
    )  # fmt: skip
    assert (found.shadow, found.shadow_sample, found.canary) == ("m=other", 0.5, "next")
    assert (found.steps, found.canary_p99_ms) == ((0.2, 0.6), 20.0)
    assert str(found.decisions) == "d.jsonl"
    assert riding("--ab", "b", "--split", "0.1").split == 0.1


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--ab", "b", "--split", "1.5"], "split"),
        (["--ab", "b", "--canary", "c"], "both say who answers"),
        (["--canary", "c", "--canary-steps", "0.5,0.1"], "growing shares"),
        (["--shadow-sample", "-0.1"], "shadow_sample"),
        (["--shadow", "nothing"], "nothing"),
    ],
)
def test_what_can_not_ride_along_is_refused(refused, finished, words, needle):
    refused(["serve", f"m={finished / 'best'}", "--port", 0, *words], needle)


@pytest.mark.parametrize("contents", [None, "", "short", "ünïcode-tökens-ünïcode"])
def test_a_file_of_tokens_that_holds_none_is_told(tmp_path, contents):
    path = tmp_path / "tokens"
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(InputError, match="token"):
        parsed("--token-file", str(path))


def test_what_is_no_bundle_is_refused(refused, tmp_path):
    refused(["serve", tmp_path / "nothing", "--port", 0], "nothing")


def test_strangers_are_refused_before_anything_is_loaded(refused, tmp_path):
    words = ["serve", tmp_path / "nothing", "--host", "0.0.0.0", "--port", 0]
    refused(words, "--token-file", "--insecure")


@pytest.fixture
def unproven(finished, tmp_path):
    path = tmp_path / "best"
    shutil.copytree(finished / "best", path)
    manifest = Bundle.open(path).manifest
    write_manifest(path, replace(manifest, verdict={**manifest.verdict, "outcome": "inconclusive"}))
    return path


def test_an_unproven_bundle_is_refused(refused, unproven):
    refused(["serve", unproven, "--port", 0], "inconclusive", "--allow-unproven", code=1)


@pytest.mark.parametrize("ended", [signal.SIGTERM, signal.SIGINT])
def test_a_server_says_where_it_is_answers_and_stops(unproven, ended):
    words = ["serve", f"digits={unproven}", "--port", "0", "--allow-unproven", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fettle", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with process:
        said = json.loads(process.stdout.readline())
        (model,) = said["models"]
        assert (model["name"], model["version"], model["state"]) == ("digits", "1", "READY")
        assert "inconclusive" in model["reason"]
        with urllib.request.urlopen(said["url"] + "/v2/models/digits") as answer:
            described = json.loads(answer.read())
        assert described["name"] == "digits"
        process.send_signal(ended)
        out, err = process.communicate(timeout=30)
    assert out == ""
    assert "Traceback" not in err
    assert process.returncode == (0 if ended == signal.SIGTERM else 130)
    (line,) = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert (line["path"], line["status"]) == ("/v2/models/digits", 200)
