"""Layers that stay in floating point, named by the module that runs them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch.fx import GraphModule, Node

from fettle.compress.quantize._quantizer import CONVOLUTIONS, LEFT, LINEARS
from fettle.core.errors import ModelError, nearest


def leave(graph: GraphModule, patterns: str) -> None:
    """Mark the layers of an exported graph whose module's path matches one of `patterns`.

    Raises:
        ModelError: a pattern that no layer matches; names the nearest.
    """
    wanted = [part.strip() for part in patterns.split(",") if part.strip()]
    layers = [node for node in graph.graph.nodes if node.target in CONVOLUTIONS | LINEARS]
    paths = {node: path_of(node) for node in layers}
    for pattern in wanted:
        if not any(fnmatchcase(path, pattern) for path in paths.values()):
            known = list(dict.fromkeys(paths.values()))
            near = nearest(pattern, known) or known[:3]
            raise ModelError(
                f"`leave` names `{pattern}`, and no convolution or linear layer runs in such a"
                f" module; the nearest are {', '.join(near)}"
            )
    for node, path in paths.items():
        if any(fnmatchcase(path, pattern) for pattern in wanted):
            node.meta[LEFT] = True


def path_of(node: Node) -> str:
    """Return the path of the module that runs `node`, empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(list(stack.values())), ("",))[0]
    return str(path).removeprefix("L['self'].").removeprefix("L['self']")
