"""What `fettle doctor` prints: a fact a line, and below each fault its mend to copy."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

_WIDTH = 15
_LINE = 100
_MEND = "; to mend it: "


def text(data: dict[str, Any]) -> str:
    """Return the page."""
    return "\n".join([
        *_machine(data["machine"], data["precisions"]), "",
        "runtimes", *_runtimes(data["runtimes"]), "",
        "extras", *_extras(data["extras"]), "",
        *_wrong([*data["conflicts"], *data["problems"]]),
        *_noise(data["interference"]),
        *(f"note: {line}" for line in data["advice"]),
    ])  # fmt: skip


def size(count: int) -> str:
    """Return bytes as people read them."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count} B"


def _row(name: str, value: str, indent: int = 0) -> str:
    return f"{' ' * indent}{name:<{_WIDTH - indent}}{value}"


def _machine(machine: dict[str, Any], precisions: dict[str, bool]) -> Iterator[str]:
    yield _row("processor", machine["cpu"] + (" (virtual)" if machine["virtual"] else ""))
    yield _row("instructions", " ".join(machine["isa"]) or "nothing special")
    formats = (f"{name} {'fast' if fast else 'slow'}" for name, fast in precisions.items())
    yield _row("formats", ", ".join(formats))
    layout = [
        f"{machine[key]} {word}{'s' if machine[key] > 1 else ''}"
        for key, word in (("cores", "core"), ("logical", "thread"), ("sockets", "socket"),
                          ("numa_nodes", "NUMA node"))
        if machine[key]
    ]  # fmt: skip
    yield _row("layout", ", ".join(layout) or "unknown")
    quota = "" if machine["cpu_quota"] is None else f" (quota {machine['cpu_quota']:g})"
    yield _row("threads", f"{machine['threads']} usable{quota}")
    caches = (f"{name} {size(count)}" for name, count in machine["cache_bytes"].items())
    yield _row("caches", ", ".join(caches) or "unknown")
    if machine["memory_bytes"]:
        limit = machine["memory_limit_bytes"]
        yield _row("memory", size(machine["memory_bytes"])
                   + (f" (limit {size(limit)})" if limit else ""))  # fmt: skip
    turbo = {None: "", True: ", turbo on", False: ", turbo off"}[machine["turbo"]]
    yield _row("governor", (machine["governor"] or "hidden") + turbo)


def _runtimes(runtimes: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, state in runtimes.items():
        what, _, mend = (state["fault"] or "").partition(_MEND)
        yield _row(name, "works" if state["works"] else f"✗ {what}", 2)
        if mend:
            yield _row("", f"  {mend}")


def _extras(extras: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, state in extras.items():
        yield _row(name, "installed" if state["installed"] else state["install"], 2)


def _wrong(found: list[dict[str, str]]) -> Iterator[str]:
    for one in found:
        yield textwrap.fill(f"✗ {one['what']}", _LINE, subsequent_indent="  ")
        yield f"    {one['mend']}"
    if found:
        yield ""


def _noise(interference: dict[str, Any]) -> Iterator[str]:
    warning = interference["warning"]
    yield f"noisy: {warning}" if warning else "quiet: nothing disturbed timings just now"
