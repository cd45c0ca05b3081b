"""What has to be known beside the numbers of a benchmark: how they came about, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fettle.report import _format as form
from fettle.report._bench_lines import Row, calls_of, label_of

_MEANT = {
    "single": "single stream: one request after the other; p90 is the number, and its interval"
    " holds in 95 of 100 runs",
    "offline": "offline: all work is there at once; the number is examples a second, with the batch"
    " and the clients that answered the most, timed afresh after all were tried",
    "server": "server: requests come at random (Poisson), none waits for another to be sent; the"
    " number is the highest rate of requests a second whose p99, from the moment that a request was"
    " due, was shown at 95 % to stay within the bound",
}


def notes_of(result: Mapping[str, Any]) -> list[str]:
    """Return the notes below the table, most of them one for a whole run."""
    rows = result["rows"]
    return [
        *(f"not on this machine: {name}: {why}" for name, why in result.get("absent", {}).items()),
        *_of_scenario(rows),
        *_of_calls(rows),
        *_of_memory(rows),
        *_of_noise(result),
    ]


def _of_scenario(rows: list[Row]) -> Iterator[str]:
    played = [row for row in rows if row.get("scenario")]
    for name in dict.fromkeys(row["scenario"]["name"] for row in played):
        yield _MEANT[name]
    for row in played:
        if row["scenario"]["name"] == "server" and not row["refused"]:
            yield f"  {label_of(row)} at batch {row['batch']}: {_confirmed(row['scenario'])}"


def _confirmed(found: Mapping[str, Any]) -> str:
    """Say what a rate rests on: tries of it, the last with arrivals that the search didn't see."""
    tries = [trial for trial in found["trials"] if trial["rate"] == found["rate"]]
    held = [trial for trial in tries if trial["answer"] == "holds"]
    asked = sum(trial["n"] for trial in tries)
    p99 = form.significant(found["latency_ms"]["p99"])
    return (
        f"{found['rate']:,.0f}/s held {len(held)} of {len(tries)} times over {asked:,} requests,"
        f" the last time with new arrivals; p99 {p99} of {found['bound_ms']:g} ms;"
        f" {_ceiling(found)}"
    )


def _ceiling(found: Mapping[str, Any]) -> str:
    failed = f"{found['failed_at']:,.0f}/s"
    if any(trial["rate"] == found["failed_at"] for trial in found["trials"]):
        return f"{failed} did not hold"
    return f"{failed} is all that it can do without a line"


def _of_calls(rows: list[Row]) -> Iterator[str]:
    if any(calls_of(row) for row in rows if not row["refused"]):
        yield (
            "calls: a file of a fixed batch is called as often as the batch needs, the last call"
            " filled up; times are of all calls together"
        )


def _of_memory(rows: list[Row]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.get("no_memory") and not row["refused"]:
            reasons.setdefault(row["no_memory"], []).append(label_of(row))
    for reason, names in reasons.items():
        yield f"no memory of {', '.join(dict.fromkeys(names))}: {reason}"


def _of_noise(result: Mapping[str, Any]) -> Iterator[str]:
    noise = result.get("noise")
    if noise:
        yield (
            f"noise floor: an artifact against itself gives {noise['value']:.2f}×"
            f" [{noise['low']:.2f}, {noise['high']:.2f}]; = marks what can't be told from the best"
        )
    warnings = [(noise or {}).get("warning"), (result.get("interference") or {}).get("warning")]
    yield from (str(warning) for warning in warnings if warning)
