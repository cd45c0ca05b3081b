"""The contract of every plug-in, whatever its shelf."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import pytest

from fettle.core.errors import KnobError, MissingError
from fettle.core.hashing import fingerprint
from fettle.core.knobs import Choice, Knob, Range, Value
from fettle.core.plugin import Plugin
from fettle.core.recipe import Recipe, parse_step
from fettle.core.shelf import PASSES, RUNTIMES, TECHNIQUES, Shelf

_AWKWARD = 'it\'s > a "name" @ C:\\models, (1)'
_CARD = ("What it does:", "When to use it:", "Expected effect:")


class PluginContract:
    """What a plug-in keeps. Inherit it in a test module; pytest runs it for each of `names`.

    Attributes:
        shelf: where the plug-ins stand.
        names: which of them; None is all, so that a new one is tested without being listed.
    """

    shelf: ClassVar[Shelf]
    names: ClassVar[Sequence[str] | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give a test that asks for `name` every name in turn."""
        if "name" in metafunc.fixturenames:
            names = self.shelf.names() if self.names is None else self.names
            test = metafunc.function.__name__
            metafunc.parametrize(
                "name", [pytest.param(n, marks=self.marks(n, test)) for n in names]
            )

    def marks(self, name: str, test: str) -> Sequence[pytest.MarkDecorator]:
        """Return the marks of a test for the plug-in called `name`; by default none."""
        del name, test
        return ()

    def load(self, name: str) -> type[Plugin]:
        """Return the class called `name`; skip the test where its package is not installed."""
        try:
            return self.shelf.load(name)
        except MissingError as error:
            pytest.skip(str(error))

    def test_is_a_frozen_keyword_only_dataclass(self, name: str) -> None:
        """Its fields can't change after construction, and are given by name."""
        cls = self.load(name)
        assert dataclasses.is_dataclass(cls), f"{name} is no dataclass"
        parameters = cls.__dataclass_params__  # type: ignore[attr-defined]
        assert "__dataclass_params__" in vars(cls), f"{name} lacks its own @dataclass"
        assert parameters.frozen, f"{name} isn't frozen"
        assert all(f.kw_only for f in dataclasses.fields(cls)), f"{name} takes positions"

    def test_answers_to_its_name(self, name: str) -> None:
        """It knows the name that the shelf has for it."""
        assert self.load(name).name() == name
        assert self.load(name) is self.load(name)

    def test_every_knob_has_bounds_a_meaning_and_a_sound_default(self, name: str) -> None:
        """A field is a knob, or takes no part in comparisons."""
        cls = self.load(name)
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            annotated = typing.get_origin(hints[field.name]) is Annotated
            assert annotated or not field.compare, f"{name}.{field.name} is compared but no knob"
        for knob in cls.knobs():
            assert knob.bounds is not None, f"{name}.{knob.name} has no bounds"
            assert knob.meaning.strip(), f"{name}.{knob.name} has no meaning"
            assert knob.bounds.refuse(knob.default) is None, f"{name}.{knob.name}: default"

    def test_takes_what_is_within_bounds(self, name: str) -> None:
        """Every value within its bounds is kept as given, and tells equal things apart."""
        plugin = self.load(name)()
        for knob in plugin.knobs():
            for value in _legal(knob):
                changed = plugin.but(**{knob.name: value})
                assert getattr(changed, knob.name) == value
                assert (changed == plugin) == (value == knob.default)

    def test_refuses_what_is_out_of_bounds(self, name: str) -> None:
        """A value out of bounds, or of another type, is a KnobError that names the knob."""
        cls = self.load(name)
        for knob in cls.knobs():
            for value in _illegal(knob):
                with pytest.raises(KnobError, match=knob.name):
                    cls(**{knob.name: value})

    def test_hash_is_stable(self, name: str) -> None:
        """Equal plug-ins hash alike, and the content hash tells every knob's values apart."""
        plugin, twin = self.load(name)(), self.load(name)()
        assert hash(plugin) == hash(twin)
        assert fingerprint(plugin.values()) == fingerprint(twin.values())
        for knob in plugin.knobs():
            values = [v for v in _legal(knob) if v != knob.default]
            prints = {fingerprint(plugin.but(**{knob.name: v}).values()) for v in values}
            assert len(prints | {fingerprint(plugin.values())}) == len(set(values)) + 1

    def test_is_made_again_from_its_values(self, name: str) -> None:
        """`shelf.make(name, **values())` is an equal plug-in."""
        for plugin in _variants(self.load(name)()):
            assert self.shelf.make(name, **plugin.values()) == plugin

    def test_prints_and_parses_back(self, name: str) -> None:
        """The one-line form gives an equal plug-in."""
        for plugin in _variants(self.load(name)()):
            assert self.parse(plugin) == plugin, f"`{plugin}` parses to something else"

    def test_has_a_method_card(self, name: str) -> None:
        """The module says what it is; a technique or a pass has the parts of a method card."""
        module = inspect.getmodule(self.load(name))
        card = inspect.getdoc(module) or ""
        assert card.strip(), f"{name}'s module has no docstring"
        if self.shelf in (TECHNIQUES, PASSES):
            missing = [part for part in _CARD if part not in card]
            assert not missing, f"the card of {name} lacks {missing}"
        if self.shelf is TECHNIQUES:
            assert "Paper" in card, f"the card of {name} names no paper"

    def parse(self, plugin: Plugin) -> Plugin | None:
        """Return what the plug-in's one-line form parses to."""
        if self.shelf is RUNTIMES:
            return Recipe.parse(f"@ {plugin}").runtime
        if self.shelf in (TECHNIQUES, PASSES):
            return parse_step(str(plugin))
        return self.shelf.make(plugin.name(), **plugin.values())


def _legal(knob: Knob) -> list[Value]:
    """Return a few values within a knob's bounds."""
    if isinstance(knob.bounds, Choice):
        return list(knob.bounds.options)
    if isinstance(knob.bounds, Range):
        low, high = knob.bounds.low, knob.bounds.high
        return [knob.type(value) for value in (low, low + (high - low) / 3, high)]
    return ["", "plain", _AWKWARD]


def _illegal(knob: Knob) -> list[Any]:
    """Return a few values that a knob must refuse."""
    wrong: list[Any] = [None, [1], {"a": 1}, object()]
    if isinstance(knob.bounds, Range):
        low, high = knob.bounds.low, knob.bounds.high
        outside = [knob.type(low - 1), knob.type(high + 1)]
        strange = [float("nan"), float("inf")] if knob.type is float else [knob.type(low) + 0.5]
        return [*wrong, *outside, *strange, "1", True]
    if isinstance(knob.bounds, Choice):
        return [*wrong, "no such option"]
    return [*wrong, 1]


def _variants(plugin: Plugin) -> Iterator[Plugin]:
    """Yield the plug-in, and copies in which one knob or all have other values."""
    yield plugin
    for knob in plugin.knobs():
        yield from (plugin.but(**{knob.name: value}) for value in _legal(knob))
    yield plugin.but(**{knob.name: _legal(knob)[-1] for knob in plugin.knobs()})
