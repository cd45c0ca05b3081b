"""The Dockerfile, read instruction by instruction: no linter and no Docker are here to do it."""

import json
import re
import shlex
from importlib.metadata import version

import pytest

from fettle.cli import build_parser
from fettle.serve.deploy._image import dockerfile, pins

PORT = 8080


def instructions(text):
    """Return (instruction, arguments) pairs; lines that end with a backslash are joined."""
    lines = re.sub(r"\\\n", "", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def of(found, name):
    return [rest for kind, rest in found if kind == name]


@pytest.fixture(scope="module")
def image(proven):
    return instructions(dockerfile(proven, "digits", PORT))


def test_every_line_is_an_instruction(image):
    known = {"FROM", "RUN", "COPY", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    assert {kind for kind, _ in image} == known


def test_the_base_is_pinned_to_a_version_and_a_distribution(image):
    (base,) = of(image, "FROM")
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)


def test_it_runs_as_someone_without_rights_and_by_number(image):
    assert of(image, "USER") == ["10001"]  # Kubernetes can't tell that a name is not root's
    order = [kind for kind, _ in image]
    assert order.index("USER") > max(i for i, kind in enumerate(order) if kind in ("RUN", "COPY"))
    assert "useradd --uid 10001" in of(image, "RUN")[0]


def test_what_it_serves_is_roots_and_readable(image):
    (copied,) = of(image, "COPY")
    assert copied == "--chown=root:root --chmod=a+rX bundle /bundle"


def test_it_writes_nowhere_but_in_tmp(image):
    env = dict(pair.split("=") for pair in shlex.split(of(image, "ENV")[0]))
    assert env["FETTLE_CACHE"].startswith("/tmp/")
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"
    assert not {"VOLUME", "WORKDIR", "ADD"} & {kind for kind, _ in image}


def test_every_package_is_pinned_to_what_was_proven(make_bundle, tmp_path):
    versions = {"fettle": "0.1.0", "openvino": "2026.4.1", "numpy": "2.4.0", "torch": "2.13.0+cpu"}
    bundle = make_bundle(tmp_path / "b", runtime="openvino(threads=1)", versions=versions)
    run = of(instructions(dockerfile(bundle, "digits", PORT)), "RUN")[0]
    words = shlex.split(run.partition("&&")[0])
    packages = [word for word in words[2:] if not word.startswith("-")]
    assert packages == ["fettle[serve,openvino]==0.1.0", "numpy==2.4.0", "openvino==2026.4.1"]
    assert "--no-cache-dir" in words


def test_what_only_its_builder_knows_of_a_version_is_no_pin(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "b", runtime="pytorch", versions={"torch": "2.13.0+cpu"})
    assert pins(bundle, "serve")[1] == "torch==2.13.0"


def test_a_bundle_that_names_no_fettle_gets_this_one(proven):
    assert pins(proven, "serve") == [f"fettle[serve]=={version('fettle')}"]


def test_the_server_understands_its_command_line(image, proven, monkeypatch):
    words = json.loads(of(image, "ENTRYPOINT")[0])
    args = build_parser(words[1:2]).parse_args(words[1:])
    assert (words[0], args.bundles) == ("fettle", ["digits=/bundle"])
    assert (args.host, args.port, args.insecure) == ("0.0.0.0", PORT, True)
    assert of(image, "EXPOSE") == [str(PORT)]


def test_its_health_is_asked_for_without_a_shell(image):
    (check,) = of(image, "HEALTHCHECK")
    words = json.loads(check.removeprefix("CMD "))
    compile(words[2], "check", "exec")
    assert words[:2] == ["python", "-c"]
    assert f":{PORT}/v2/health/ready" in words[2]
