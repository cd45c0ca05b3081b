"""The text that `fettle inspect` prints: short first, details on demand."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fettle.report import _format as form

_WIDTH = 120
_FEW = 6
_NAME = 44


def inspect_text(result: Mapping[str, Any], with_layers: bool = False) -> str:
    """Return what an inspection found; every layer, finding and refusal `with_layers`."""
    lines = [
        *_head(result),
        *_precisions(result),
        *_unfused(result, with_layers),
        *_lint(result["lint"], with_layers),
        *_saturation(result.get("saturation")),
    ]
    for engine, profile in (result.get("profile") or {}).items():
        lines += ["", *_profile(engine, profile, with_layers)]
    for version, command in (result.get("trtexec") or {}).items():
        title = "first, the ONNX file:" if version == "export" else f"TensorRT {version}:"
        lines += ["", title, f"  {command}"]
    if with_layers:
        lines += ["", *_layers(result["layers"])]
    return "\n".join(lines)


def _head(result: Mapping[str, Any]) -> Iterator[str]:
    macs = "unknown" if result["macs"] is None else f"{result['macs']:,}"
    operators = ", ".join(f"{op} {n}" for op, n in result["operators"].items())
    yield f"subject     {result['subject']}"
    yield f"parameters  {result['parameters']:,}"
    yield f"MACs        {macs} (one example)"
    yield f"sparsity    {result['sparsity']:.1%}"
    yield f"size        {result['size_bytes']:,} bytes"
    yield textwrap.fill(f"operators   {operators}", _WIDTH, subsequent_indent=" " * 12)


def _precisions(result: Mapping[str, Any]) -> Iterator[str]:
    yield "precision of what computes, as each engine runs it:"
    for runtime, counts in result["precisions"].items():
        shown = ", ".join(f"{n} × {precision}" for precision, n in counts.items())
        yield f"  {runtime:<12} {shown or 'the engine does not tell'}"
    for runtime, why in result["refused"].items():
        text = f"  {runtime:<12} refused: {why}"
        yield textwrap.fill(text, _WIDTH, subsequent_indent=" " * 15)


def _unfused(result: Mapping[str, Any], everything: bool) -> Iterator[str]:
    for engine, found in (result.get("unfused") or {}).items():
        layers, meant = found["layers"], found["meant"]
        yield f"left in float on {engine}: {len(layers) or 'none'} of {meant} layers meant for int8"
        for layer in _few(layers, everything):
            spent = f"{form.significant(layer['ms'])} ms, " if layer["ms"] is not None else ""
            text = f"  {layer['op']:<12} {_cut(layer['node'])}: {spent}{layer['explanation']}"
            yield textwrap.fill(text, _WIDTH, subsequent_indent=" " * 15)
        yield from _more(layers, everything)
        yield from _conversions(found["conversions"])


def _conversions(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if found:
        counts = ", ".join(f"{n} × {op}" for op, n in Counter(c["op"] for c in found).items())
        known = [c["ms"] for c in found if c["ms"] is not None]
        spent = f", {form.significant(sum(known))} ms" if known else ""
        yield f"  conversions that run as layers of their own: {counts}{spent}"


def _lint(findings: Sequence[Mapping[str, str]], everything: bool) -> Iterator[str]:
    if not findings:
        yield "TensorRT    nothing in the graph that it would refuse or leave in float"
        return
    counts = Counter(finding["severity"] for finding in findings)
    yield f"TensorRT    {', '.join(f'{n} × {severity}' for severity, n in counts.items())}"
    shown = findings if everything else [*{f["rule"]: f for f in reversed(findings)}.values()][::-1]
    for finding in _few(shown, everything):
        text = f"  {finding['severity']}: {finding['node']}: {finding['found']}; {finding['mend']}"
        yield textwrap.fill(text, _WIDTH, subsequent_indent="    ")
    left = len(findings) - len(_few(shown, everything))
    if left > 0:
        yield f"  … and {left} like these; --layers shows all"


def _saturation(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    text = found.get("warning") or "no sum of two products saturates on a processor without VNNI"
    yield textwrap.fill(f"saturation  {text}", _WIDTH, subsequent_indent=" " * 12)


def _profile(engine: str, profile: Mapping[str, Any], everything: bool) -> Iterator[str]:
    total, bound = profile["total_ms"], profile["bound_ms"]
    yield (
        f"time on {engine}: {form.significant(total)} ms a call, {form.significant(bound)} ms of it"
        f" bound by the processor ({profile['fraction']:.0%}); slowest first:"
    )
    rows = [row for row in profile["layers"] if row["ms"]]
    rows.sort(key=lambda row: -row["ms"])
    cells = [_profile_cells(row) for row in _few(rows, everything, 10)]
    yield from _aligned([["ms", "share", "bound", "type", "shape", "layer"], *cells], 3)
    yield from _more(rows, everything, 10)


def _profile_cells(row: Mapping[str, Any]) -> list[str]:
    nodes = f" = {', '.join(row['nodes'][:2])}" if row["nodes"] else ""
    return [
        form.significant(row["ms"]),
        f"{row['share']:.0%}",
        f"{row['bound_ms'] / row['ms']:.0%}",
        row["precision"],
        _shape(row["shape"]),
        f"{row['op']} {_cut(row['name'])}{nodes}"[:_WIDTH],
    ]


def _layers(layers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    engines = list(dict.fromkeys(name for layer in layers for name in layer["precision"]))
    head = ["layer", "operator", "shape", *engines]
    cells = [
        [
            _cut(layer["name"]),
            layer["op"],
            _shape(layer["shape"]),
            *(layer["precision"].get(engine, form.DASH) for engine in engines),
        ]
        for layer in layers
    ]
    yield from _aligned([head, *cells], 0)


def _shape(shape: Sequence[int]) -> str:
    return "×".join("n" if size < 0 else str(size) for size in shape)


def _aligned(rows: Sequence[Sequence[str]], numbers: int) -> Iterator[str]:
    """Yield rows as columns; the first `numbers` of them are set to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if i < numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _few(rows: Sequence[Any], everything: bool, most: int = _FEW) -> Sequence[Any]:
    return rows if everything else rows[:most]


def _more(rows: Sequence[Any], everything: bool, most: int = _FEW) -> Iterator[str]:
    if not everything and len(rows) > most:
        yield f"  … and {len(rows) - most} more; --layers shows all"


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
