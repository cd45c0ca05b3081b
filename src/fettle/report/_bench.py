"""The table that `fettle bench` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = ("artifact", "runtime", "type", "batch", "thr", "p50 ms", "p90", "p95", "p99", "mean",
         "per s", "MB", "peak MB", "× slowest")  # fmt: skip


def bench_table(result: Mapping[str, Any]) -> str:
    """Return the rows of a benchmark as aligned text, fastest first within a batch size."""
    rows = sorted(result["rows"], key=_order)
    slowest: dict[tuple[int, int], float] = {}
    for row in rows:
        if row["latency_ms"]:
            key = (row["batch"], row["threads"])
            slowest[key] = max(slowest.get(key, 0.0), row["latency_ms"]["p50"])
    lines = [_HEAD, *(_cells(row, slowest) for row in rows if not row["refused"])]
    text = _aligned(lines)
    refused = [f"refused: {r['subject']} @ {r['runtime']}: {r['refused']}" for r in rows
               if r["refused"]]  # fmt: skip
    return "\n".join([text, *refused, *_noise(result.get("noise"))])


def _order(row: Mapping[str, Any]) -> tuple[int, int, float]:
    latency = row["latency_ms"]
    return row["batch"], row["threads"], latency["p50"] if latency else float("inf")


def _cells(row: Mapping[str, Any], slowest: Mapping[tuple[int, int], float]) -> tuple[str, ...]:
    latency = row["latency_ms"]
    times = [latency[key] for key in ("p50", "p90", "p95", "p99", "mean")]
    return (
        row["subject"][-40:],
        row["runtime"],
        row["precision"],
        str(row["batch"]),
        str(row["threads"]),
        *("–" if time is None else f"{time:.3g}" for time in times),
        f"{row['throughput']:,.0f}",
        f"{row['size_bytes'] / 1e6:.2f}",
        f"{row['peak_memory_bytes'] / 1e6:.0f}" if row["peak_memory_bytes"] else "–",
        f"{slowest[row['batch'], row['threads']] / latency['p50']:.2f}",
    )


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _noise(noise: Mapping[str, Any] | None) -> list[str]:
    if not noise:
        return []
    floor = (
        f"noise floor: an artifact against itself gives {noise['value']:.2f}×"
        f" [{noise['low']:.2f}, {noise['high']:.2f}]"
    )
    return [floor, noise["warning"]] if noise.get("warning") else [floor]
