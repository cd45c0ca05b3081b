"""The page: rows and drawings put into the templates, with styles and script inline.

A content security policy names the one script and the one style sheet by their hashes and forbids
the network: whatever a name in a result holds, nothing else runs and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fettle.report import _format as form
from fettle.report import _frontier, _interval, _tables
from fettle.report._record import Record
from fettle.report._search import search_info
from fettle.report._verdict import verdict_info

_HERE = Path(__file__).parent
_WIDE, _NARROW = (760, 420), (328, 340)
_FILTERS = {
    "significant": form.significant,
    "ms": form.milliseconds,
    "seconds": form.seconds,
    "bytes": form.size,
    "count": form.count,
    "quantity": form.quantity,
    "times": form.times,
    "times_bounds": form.times_bounds,
    "percent": form.percent,
    "percent_bounds": form.percent_bounds,
    "share": form.share,
    "points": form.points,
    "points_bounds": form.points_bounds,
    "budget": form.budget,
    "describe": _frontier.describe,
}


def page(record: Record) -> str:
    """Return the whole report as one HTML document."""
    info = _frontier.frontier_info(record)
    costs = _tables.cost_rows(record)
    return render(
        "report.html",
        record=record,
        verdict=verdict_info(record),
        picture=_interval.picture(record),
        frontier=info,
        kind_names=_frontier.KINDS,
        plots=[
            ("wide", _frontier.plot(info, *_WIDE)),
            ("narrow", _frontier.plot(info, *_NARROW)),
        ],
        techniques=_tables.technique_rows(record),
        latencies=_tables.latency_rows(record),
        p99_reason=_tables.p99_reason(record),
        costs=costs,
        stage_kinds=_tables.kinds_used(costs),
        search=search_info(record),
        refused=_tables.refused_rows(record),
        machine=_tables.machine_rows(record),
    )


def render(template: str, **values: Any) -> str:
    """Return a template filled with `values`, with styles and script inline and named by hash."""
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            style=_asset("report.css"),
            style_hash=_hash("report.css"),
            script=_asset("report.js"),
            script_hash=_hash("report.js"),
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
    return environment


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


def _asset(name: str) -> Markup:
    return Markup(_text(name))  # noqa: S704 - a file of this package, never of the result


def _hash(name: str) -> str:
    digest = hashlib.sha256(_text(name).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
