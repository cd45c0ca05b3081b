"""The page: what was gathered, put into the templates with styles and script inline.

A content security policy names the one script and the one style sheet by their hashes. A file is
forbidden the network; what a server shows may ask that server alone, for itself anew.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fettle.monitor.dashboard import _drift, _quality, _requests
from fettle.monitor.dashboard import _format as form
from fettle.monitor.dashboard._health import headline

_HERE = Path(__file__).parent
_FILTERS = {
    "count": form.count,
    "percent": form.percent,
    "points": form.points,
    "significant": form.significant,
    "milliseconds": form.milliseconds,
    "duration": form.length,
    "moment": form.moment,
    "machine_moment": form.machine_moment,
}


def page(state: Mapping[str, Any], every_s: float | None = None) -> str:
    """Return the dashboard as one HTML document that needs nothing but itself.

    Args:
        state: as `gather` returns it.
        every_s: how often it asks the server that shows it for what is new; None for a file.
    """
    return _render("page.html", state, every_s=every_s)


def fragment(state: Mapping[str, Any]) -> str:
    """Return what of the page changes: the inside of its `main`."""
    return _render("main.html", state)


def _render(template: str, state: Mapping[str, Any], **values: Any) -> str:
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            state=state,
            headline=headline(state),
            latency=_requests.latency(state),
            latency_rows=_requests.latency_rows(state),
            traffic=_requests.traffic(state),
            traffic_rows=_requests.traffic_rows(state),
            strips=_drift.strips(state["drift"]),
            accuracy=_quality.accuracy(state),
            trials=_quality.trials(state),
            shadows=_quality.shadows(state),
            ledgers=[
                (row, _quality.cost_columns(row), _quality.cost_rows(row)) for row in state["cost"]
            ],
            style=_asset("dashboard.css"),
            style_hash=_hash("dashboard.css"),
            script=_asset("dashboard.js"),
            script_hash=_hash("dashboard.js"),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    environment.globals.update(bounds=form.bounds, as_percent=form.percent)
    return environment


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


def _asset(name: str) -> Markup:
    return Markup(_text(name))  # noqa: S704 - a file of this package, never of a log


def _hash(name: str) -> str:
    digest = hashlib.sha256(_text(name).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
