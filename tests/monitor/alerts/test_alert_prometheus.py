"""The files for Prometheus and Grafana: their shape, and that what one names another records."""

import json
import re

import yaml

from fettle.monitor.alerts.prometheus import ALERTS, DASHBOARD, RECORDED, RULES, alerts, emit

RECORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
OURS = re.compile(r"\b(?:route|model):fettle_\w+:\w+")


def balanced(expr):
    """Whether brackets and quotes close in their order."""
    plain, open_ones = re.sub(r'"[^"]*"', "", expr), []
    pairs = {")": "(", "]": "[", "}": "{"}
    for char in plain:
        if char in "([{":
            open_ones.append(char)
        elif char in pairs and (not open_ones or open_ones.pop() != pairs[char]):
            return False
    return not open_ones and '"' not in plain


def test_files_are_written_as_yaml_and_json(tmp_path):
    names = [path.name for path in emit(tmp_path / "new", p99_s=0.02)]
    assert names == [RULES, ALERTS, DASHBOARD]
    for name in (RULES, ALERTS):
        document = yaml.safe_load((tmp_path / "new" / name).read_text())
        (group,) = document["groups"]
        assert {"name", "interval", "rules"} == set(group)
        for rule in group["rules"]:
            assert ("record" in rule) != ("alert" in rule)
            assert balanced(rule["expr"]), rule["expr"]
    dashboard = json.loads((tmp_path / "new" / DASHBOARD).read_text())
    assert [panel["id"] for panel in dashboard["panels"]] == list(range(1, 11))


def test_recorded_names_are_prometheus_and_are_no_twins():
    names = [rule.record for rule in RECORDED]
    assert len(set(names)) == len(names)
    assert all(RECORD.fullmatch(name) for name in names)


def test_alerts_and_panels_name_only_what_is_recorded(tmp_path):
    emit(tmp_path)
    dashboard = json.loads((tmp_path / DASHBOARD).read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {n for e in (*targets, *(r["expr"] for r in alerts(1.0))) for n in OURS.findall(e)}
    assert named == {rule.record for rule in RECORDED} - {"route:fettle_queue_seconds:p99_5m"}
    assert all(balanced(expr) and "$by" not in expr for expr in targets)


def test_every_panel_can_be_asked_for_one_model(tmp_path):
    emit(tmp_path)
    text = (tmp_path / DASHBOARD).read_text()
    dashboard = json.loads(text)
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["source", "model"]
    assert text.count('model=~\\"$model\\"') >= len(dashboard["panels"]) - 1


def test_a_limit_of_latency_makes_one_alert_more():
    assert len(alerts(0.05)) == len(alerts()) + 1
    assert alerts(0.05)[-1]["expr"].endswith("> 0.05")
