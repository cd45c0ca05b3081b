"""For those who have Prometheus and Grafana: recording rules, alerts, and a dashboard, as files.

They name only what the server's `/metrics` exposes. JSON is YAML too, so nothing more is needed to
write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fettle.core.files import write_json

RULES, ALERTS, DASHBOARD = "fettle.rules.yml", "fettle.alerts.yml", "fettle.dashboard.json"
_BY = "model, version, route"
_DURATION = "fettle_request_duration_seconds"
_QUEUE = "fettle_queue_duration_seconds"
_WINDOW = "5m"


class Recorded(NamedTuple):
    """A recording rule: its name, and the expression that it keeps."""

    record: str
    expr: str


class Panel(NamedTuple):
    """A drawing of the dashboard: its title, unit, and expressions with their legends."""

    title: str
    unit: str
    targets: tuple[tuple[str, str], ...]


def _rate(metric: str, labels: str = "", by: str = _BY) -> str:
    return f"sum by ({by}) (rate({metric}{labels}[{_WINDOW}]))"


def _quantile(q: float, metric: str) -> str:
    answered = '{status="ok"}'
    return f"histogram_quantile({q}, {_rate(f'{metric}_bucket', answered, f'le, {_BY}')})"


def _share(labels: str) -> str:
    """Return the share of requests with these labels; a route without any has no such series."""
    every = _rate(f"{_DURATION}_count")
    return f"({_rate(f'{_DURATION}_count', labels)} or 0 * {every}) / {every}"


RECORDED = (
    Recorded("route:fettle_requests:rate5m", _rate(f"{_DURATION}_count")),
    Recorded(
        "route:fettle_failed:ratio_rate5m",
        _share('{status!="ok"}'),
    ),
    Recorded(
        "route:fettle_saturated:ratio_rate5m",
        _share('{status=~"Busy|Late"}'),
    ),
    *(
        Recorded(f"route:fettle_duration_seconds:p{round(100 * q)}_5m", _quantile(q, _DURATION))
        for q in (0.5, 0.95, 0.99)
    ),
    Recorded("route:fettle_queue_seconds:p99_5m", _quantile(0.99, _QUEUE)),
    Recorded(
        "route:fettle_waiting:ratio_rate5m",
        f"{_rate(f'{_QUEUE}_sum')} / {_rate(f'{_DURATION}_sum')}",
    ),
    Recorded(
        "model:fettle_batch_size:mean5m",
        f"{_rate('fettle_batch_size_sum', by='model, version')}"
        f" / {_rate('fettle_batch_size_count', by='model, version')}",
    ),
    Recorded(
        "model:fettle_compute_seconds:mean5m",
        f"{_rate('nv_inference_compute_infer_duration_us', by='model, version')} / 1e6"
        f" / {_rate('nv_inference_count', by='model, version')}",
    ),
)


def alerts(p99_s: float | None = None) -> list[dict[str, Any]]:
    """Return rules of alerts; with `p99_s`, in seconds, one for answers that are slower."""
    found = [
        _alert("FettleFailing", "route:fettle_failed:ratio_rate5m > 0.01", "5m", "page",
               "{{ $value | humanizePercentage }} of requests to {{ $labels.model }} fail"),
        _alert("FettleNoRoom", "route:fettle_saturated:ratio_rate5m > 0.01", "5m", "page",
               "{{ $labels.model }} refuses requests: its queue is full"),
        _alert("FettleNotReady", "fettle_model_ready == 0", "2m", "page",
               "{{ $labels.model }} doesn't answer"),
        _alert("FettleLogTrouble", "fettle_log_trouble == 1", "5m", "ticket",
               "the prediction log can't be written"),
        _alert("FettleShadowHangs", "fettle_shadow_hangs == 1", "5m", "ticket",
               "the shadow of {{ $labels.model }} hangs: nothing is compared"),
    ]  # fmt: skip
    if p99_s is not None:
        slow = f"route:fettle_duration_seconds:p99_5m > {p99_s:g}"
        told = "1 in 100 answers of {{ $labels.model }} takes {{ $value | humanizeDuration }}"
        found.append(_alert("FettleSlow", slow, "10m", "ticket", told))
    return found


PANELS = (
    Panel("Requests a second", "reqps", (
        ("route:fettle_requests:rate5m{$by}", "{{model}} {{route}}"),
    )),
    Panel("Failed", "percentunit", (
        ("route:fettle_failed:ratio_rate5m{$by}", "{{model}} {{route}} failed"),
        ("route:fettle_saturated:ratio_rate5m{$by}", "{{model}} {{route}} no room"),
    )),
    Panel("Latency", "s", tuple(
        (f"route:fettle_duration_seconds:{p}_5m{{$by}}", f"{{{{model}}}} {{{{route}}}} {p}")
        for p in ("p50", "p95", "p99")
    )),
    Panel("Share of the time that answers wait", "percentunit", (
        ("route:fettle_waiting:ratio_rate5m{$by}", "{{model}} {{route}}"),
    )),
    Panel("Computing, each row", "s", (("model:fettle_compute_seconds:mean5m{$by}", "{{model}}"),)),
    Panel("Rows of a run", "none", (("model:fettle_batch_size:mean5m{$by}", "{{model}}"),)),
    Panel("Answers that differ from the shadow's", "percentunit", (
        ("fettle_shadow_disagreement{$by}", "{{bound}}"),
        ("fettle_shadow_accuracy_loss_bound{$by}", "accuracy is at most so much lower"),
    )),
    Panel("Share of callers that the canary answers", "percentunit", (
        ("fettle_canary_share{$by}", "{{model}}"),
    )),
    Panel("Waiting to be computed", "none", (
        ("nv_inference_pending_request_count{$by}", "{{model}}"),
    )),
    Panel("Not in the log", "none", (("rate(fettle_log_lost_total[5m])", "{{kind}}"),)),
)  # fmt: skip


def emit(folder: str | Path, p99_s: float | None = None) -> list[Path]:
    """Write `fettle.rules.yml`, `fettle.alerts.yml` and `fettle.dashboard.json`; return them.

    Raises:
        StorageError: the folder can't be written.
    """
    place = Path(folder)
    recorded = [rule._asdict() for rule in RECORDED]
    files = {
        RULES: _group("fettle", recorded),
        ALERTS: _group("fettle-alerts", alerts(p99_s)),
        DASHBOARD: dashboard(),
    }
    for name, document in files.items():
        write_json(place / name, document)
    return [place / name for name in files]


def dashboard() -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "title": "fettle",
        "uid": "fettle",
        "tags": ["fettle"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": [_panel(at, panel) for at, panel in enumerate(PANELS)],
    }


def _alert(name: str, expr: str, wait: str, severity: str, summary: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "keep_firing_for": "10m",
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }


def _group(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"groups": [{"name": name, "interval": "30s", "rules": rules}]}


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield {
        "name": "model",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": "label_values(fettle_model_ready, model)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
    }


def _panel(at: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": source,
            "expr": expr.replace("$by", 'model=~"$model"'),
            "legendFormat": legend,
        }
        for number, (expr, legend) in enumerate(panel.targets)
    ]
    return {
        "id": at + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": 12 * (at % 2), "y": 8 * (at // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": targets,
    }
