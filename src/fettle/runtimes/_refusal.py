"""Why an engine doesn't run a model, in one line that names the operator and its node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fettle.core.errors import ModelError
from fettle.runtimes import _graphs

_CONTRIB = "com.microsoft"
_QUANTIZED = re.compile(r"QLinear|QGemm|QAttention|DynamicQuantize|MatMulInteger")
_FLOAT_INSTEAD = (
    "; it is onnxruntime's own form of quantization: give the float model to `graph.static_int8`,"
    " or quantize it with `quant_format=QuantFormat.QDQ`"
)
_SHOWN = 3
_LONGEST = 400
# Each finds an operator's type and, where the engine says it, its domain and the node's name.
_MENTIONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"implementation for (?:(?P<domain>[\w.]+)[.:])?(?P<op>\w+)\(\d+\) node with name"
        r" '(?P<node>[^']*)'",
        r"(?:(?P<domain>[\w.]+):)?(?P<op>\w+)\(-?\d+\) is not a registered function/op",
        r'In Node, \("(?P<node>[^"]*)", (?P<op>\w+), "(?P<domain>[^"]*)"',
        r"of operator \((?P<op>\w+)\) in node \((?P<node>[^)]*)\)",
        r"Node \((?P<node>[^)]*)\) Op \((?P<op>\w+)\)",
        r"while running (?P<op>\w+) node\. Name:'(?P<node>[^']*)'",
        r"<Node\((?P<op>\w+)\): (?P<output>[^>,]*)>",
        r"Conversion is failed for: (?:(?P<domain>[\w.]+)\.)?(?P<op>\w+?)-\d+",
        r"\[CPU\] (?P<op>\w+) node with name '(?P<output>[^']*)'",
        r"While validating node 'opset\d+::(?P<op>\w+) (?P<output>\S+) \(",
    )
)
_LISTED = re.compile(
    r"(?:No conversion rule found for operations|[Uu]nsupported operations?): (.+)"
)
_LISTED_ONE = re.compile(r"(?:(?P<domain>[\w.]+)\.)?(?P<op>\w+?)(?:-\d+)?$")
_NOISE = (
    r"\[ONNXRuntimeError\] : \d+ : \w+ : ",
    r"Load model from .*? failed:",
    r"^Exception from \S+:\d+:?$",
    r"^Check '.*' failed at \S+:\d+:?$",
    r"Check '.*?' failed at \S+:\d+:",
    r"^FrontEnd API failed with \w+:?$",
    r"^While validating (?:ONNX )?node '.*?'(?: with friendly_name '.*?')?:",
    r"^-- \w+-\d+ with a message:$",
    r"^Model wasn't fully converted\..*$",
    r"^Summary:$",
    r"^-- Conversion is failed for: .*$",
    r"^Loading input model$",
    r"/\S+\.(?:cc|h|cpp):\d+ .*?\) (?=[A-Za-z_])",
)


@dataclass(frozen=True)
class _Mention:
    op: str
    domain: str = ""
    node: str = ""
    output: str = ""


def refusal(engine: str, error: Exception, model: Path | bytes) -> ModelError:
    """Return the error that says which operator `engine` can't run, and its own reason."""
    text = str(error)
    reason = _reason(text) or type(error).__name__
    mentions = _mentions(text)
    told = list(dict.fromkeys(_named(mention, model) for mention in mentions))
    if not told:
        return ModelError(f"{engine} refuses the model: {reason}")
    more = f" and {len(told) - _SHOWN} other operators" if len(told) > _SHOWN else ""
    own = any(m.domain == _CONTRIB and _QUANTIZED.match(m.op) for m in mentions)
    advice = _FLOAT_INSTEAD if own else ""
    return ModelError(
        f"{engine} refuses the model: {', '.join(told[:_SHOWN])}{more}: {reason}{advice}"
    )


def _mentions(text: str) -> list[_Mention]:
    """Return the operators that the message is about, best told first."""
    listed = _LISTED.search(text)
    if listed:
        matches = (_LISTED_ONE.search(part.strip()) for part in listed[1].split(","))
        return [_mention(match) for match in matches if match]
    found = [pattern.search(text) for pattern in _MENTIONS]
    return [_mention(match) for match in found if match][:1]


def _mention(match: re.Match[str]) -> _Mention:
    return _Mention(**{name: value for name, value in match.groupdict().items() if value})


def _named(mention: _Mention, model: Path | bytes) -> str:
    """Return `operator (node)`; the node is looked up in the file where the engine is silent."""
    names = [mention.node] if mention.node else list(_looked_up(mention, model))
    operator = f"`{mention.domain}.{mention.op}`" if mention.domain else f"`{mention.op}`"
    if not names:
        return f"operator {operator}"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"operator {operator} (node `{names[0]}`{more})"


def _looked_up(mention: _Mention, model: Path | bytes) -> Iterator[str]:
    """Yield the names of the nodes that are meant, or what they make where they bear none."""
    try:
        graph = _graphs.read(model).graph
    except Exception:  # the file may be why the engine failed; protobuf's errors have no base
        return
    for node in _graphs.nodes(graph):
        if node.op_type != mention.op or (mention.output and mention.output not in node.output):
            continue
        if not mention.domain or node.domain == mention.domain:
            yield node.name or next(iter(node.output), "")


def _reason(text: str) -> str:
    """Return what the engine says without its own places in source code, on one line."""
    lines = [_quiet(line.strip()).strip(" -") for line in text.splitlines()]
    reason = "; ".join(dict.fromkeys(line for line in lines if line))
    return reason if len(reason) <= _LONGEST else reason[: _LONGEST - 2] + " …"


def _quiet(line: str) -> str:
    for noise in _NOISE:
        line = re.sub(noise, "", line).strip()
    return line
