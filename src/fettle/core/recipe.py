"""The recipe: an ordered list of plug-ins and a runtime, written as one line.

distill.logits(temperature=3) > prune.channels(ratio=0.5) > quantize.aware(epochs=2) @ openvino
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import RecipeError
from fettle.core.hashing import fingerprint
from fettle.core.plugin import Plugin
from fettle.core.shelf import PASSES, RUNTIMES, TECHNIQUES

_EXAMPLE = "e.g. `prune.channels(ratio=0.5) > quantize.aware(epochs=2) @ openvino`"
# a quoted text, or one character
_TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Recipe:
    """What is done to a model, in order, and what runs the result.

    `steps` holds techniques (torch modules in and out) first, then graph passes (ONNX in and out).
    The empty recipe leaves the model alone: it is always a candidate.
    """

    steps: tuple[Plugin, ...] = ()
    runtime: Plugin | None = None

    @classmethod
    def parse(cls, line: str) -> Recipe:
        """Read a recipe from its one-line form.

        Raises:
            RecipeError: the line doesn't parse, or a graph pass stands before a technique.
            UnknownName: a plug-in that doesn't exist.
            KnobError: a knob that doesn't exist or is out of bounds.
        """
        steps_text, at, runtime_text = _split_runtime(line)
        if at and not runtime_text.strip():
            raise RecipeError(f"a runtime was expected after `@` in `{line}`, {_EXAMPLE}")
        steps = tuple(parse_step(part) for part in _split_steps(steps_text))
        runtime = parse_call(runtime_text, RUNTIMES.make) if at else None
        return cls(steps, runtime).checked()

    def checked(self) -> Recipe:
        """Return self when the order of the steps can work, else raise RecipeError."""
        kinds = [step.name().startswith(PASSES.prefix) for step in self.steps]
        if kinds != sorted(kinds):
            raise RecipeError(f"graph passes work on the exported model, so they come last: {self}")
        return self

    @property
    def techniques(self) -> tuple[Plugin, ...]:
        """The steps that take and return a torch module."""
        return tuple(s for s in self.steps if not s.name().startswith(PASSES.prefix))

    @property
    def passes(self) -> tuple[Plugin, ...]:
        """The steps that take and return an ONNX model."""
        return tuple(s for s in self.steps if s.name().startswith(PASSES.prefix))

    def on(self, runtime: Plugin | None) -> Recipe:
        """Return the same steps on another runtime."""
        return Recipe(self.steps, runtime)

    def hash(self) -> str:
        """Return a hash of every step and every knob, defaults too."""
        plugins = [*self.steps, *([self.runtime] if self.runtime else [])]
        return fingerprint([(plugin.name(), plugin.values()) for plugin in plugins])

    def __str__(self) -> str:
        line = " > ".join(str(step) for step in self.steps)
        return f"{line} @ {self.runtime}".strip() if self.runtime else line


def parse_step(text: str) -> Plugin:
    """Return the technique or graph pass that `text` (`name(knob=value)`) describes."""
    shelf = PASSES if text.strip().startswith(PASSES.prefix) else TECHNIQUES
    return parse_call(text, shelf.make)


def _split_runtime(line: str) -> tuple[str, str, str]:
    parts = _outside_quotes(line, "@")
    if len(parts) > 2:
        raise RecipeError(f"one `@ runtime` was expected at the end of `{line}`, {_EXAMPLE}")
    return parts[0], "@" if len(parts) == 2 else "", parts[-1]


def _split_steps(text: str) -> list[str]:
    parts = _outside_quotes(text, ">") if text.strip() else []
    if any(not part.strip() for part in parts):
        raise RecipeError(f"an empty step in `{text}`, {_EXAMPLE}")
    return parts


def _outside_quotes(text: str, separator: str) -> list[str]:
    """Split at `separator` where it stands outside quotation marks."""
    parts = [""]
    for token in _TOKEN.findall(text):
        if token == separator:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def parse_call(text: str, make: Any) -> Plugin:
    """Return what `make` makes of the name and the knobs in `text`, `name(knob=value, …)`.

    Raises:
        RecipeError: it doesn't parse.
    """
    text = text.strip()
    name, parenthesis, rest = text.partition("(")
    name = name.strip()
    if not _NAME.fullmatch(name) or (parenthesis and not rest.rstrip().endswith(")")):
        raise RecipeError(f"expected `name(knob=value, …)`, got `{text}`, {_EXAMPLE}")
    try:
        call = ast.parse(f"_({rest.rstrip()[:-1]})" if parenthesis else "_()", mode="eval").body
        assert isinstance(call, ast.Call)
        values = _values(call, text)
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"the knobs of `{text}` don't parse ({error}), {_EXAMPLE}") from error
    plugin: Plugin = make(name, **values)
    return plugin


def _values(call: ast.Call, text: str) -> dict[str, Any]:
    names = [keyword.arg for keyword in call.keywords]
    if call.args or None in names:
        raise RecipeError(f"knobs are given by name: `name(knob=value)`, got `{text}`")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RecipeError(f"each knob is given once, got `{twice}` twice in `{text}`")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
