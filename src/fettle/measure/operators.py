"""Operators: what a graph is made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fettle.measure._graph import nodes, read


def operators_of(path: str | Path) -> dict[str, int]:
    """Return how often each operator stands in the graph, most frequent first, then by name.

    Operators outside ONNX's own domain are named with theirs: `com.microsoft.QLinearAdd`.
    Branches of If and bodies of Loop count once each; calls of local functions, as themselves.

    Raises:
        ModelError: no readable ONNX.
    """
    counts = Counter(
        f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in nodes(read(path).graph)
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
