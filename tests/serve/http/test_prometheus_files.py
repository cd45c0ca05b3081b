"""Rules and dashboards for Prometheus name what a running server exposes, with labels it has."""

import json
import re

import pytest
from tests.serve.http.test_infer import asking
from tests.serve.http.test_rollout import ask, until
from tests.serve.http.whole import Served, serving

from fettle.monitor._exposition import exposition
from fettle.monitor.alerts.prometheus import RECORDED, alerts, dashboard
from fettle.monitor.log import Counts
from fettle.monitor.metrics import log_families
from fettle.serve.rollout.settings import RolloutSettings

METRIC = re.compile(r"(?<![:\w])((?:fettle|nv)_\w+)(?:\{([^}]*)\})?")
BY = re.compile(r"by \(([^)]*)\) \(rate\((\w+)")
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? \S+$", re.MULTILINE)  # as Prometheus reads it
LABEL = re.compile(r'(\w+)\s*(?:=~|!=|=)\s*"')
LOST = Counts(1, 1, 0, {"queue": 3}, "")  # which a server that keeps up has no sample of


@pytest.fixture(scope="module")
def exposed(proven, make_bundle, tmp_path_factory):
    """The labels of every sample that a server with all that can ride along exposes, by name."""
    folder = tmp_path_factory.mktemp("riding")
    twin = make_bundle(folder / "twin", recipe="@ onnxruntime(threads=2)")
    wanted = RolloutSettings(shadow=str(twin.path), shadow_sample=1.0, shadow_busy=1.0,
                             canary=str(twin.path))  # fmt: skip
    inputs, outputs = proven.golden()
    log = folder / "log.db"
    with serving([f"m={proven.path}"], wanted, log=log) as run, asking(run) as client:
        served = Served(run, client, inputs, outputs)
        ask(served, 8)
        text = until(
            lambda: (t := served.get("/metrics").body.decode()) and "loss_bound" in t and t
        )
    found = {}
    for name, labels in SAMPLE.findall(text + exposition(log_families(LOST))):
        found.setdefault(name, set()).update(LABEL.findall(labels))
    return found


def expressions():
    panels = json.loads(json.dumps(dashboard()))["panels"]
    targets = [target["expr"] for panel in panels for target in panel["targets"]]
    return [*(rule.expr for rule in RECORDED), *(rule["expr"] for rule in alerts(1.0)), *targets]


def test_every_metric_is_exposed_with_the_labels_that_are_asked_of_it(exposed):
    for expr in expressions():
        for name, selector in METRIC.findall(expr):
            assert name in exposed, (name, expr)
            assert set(LABEL.findall(selector)) <= exposed[name], (name, expr)
        for labels, name in BY.findall(expr):
            assert {label.strip() for label in labels.split(",")} <= exposed[name], expr
