"""A contract that can't fail is no contract: each rule is broken once, and must be noticed."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import pytest

from fettle.core.knobs import Range
from fettle.core.plugin import Plugin
from fettle.testing import PluginContract


class Shelf:
    """A shelf that holds one class."""

    def __init__(self, cls):
        self.cls = cls

    def load(self, name):
        self.cls.plugin_name = name
        return self.cls

    def make(self, name, **values):
        return self.cls(**values)


@dataclass(frozen=True, kw_only=True)
class Sound(Plugin):
    """Keeps every rule."""

    size: Annotated[int, Range(1, 9), "how large"] = 3
    share: Annotated[float, Range(0, 1), "of what"] = 0.25
    aside: object = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True)
class Positional(Plugin):
    size: Annotated[int, Range(1, 9), "how large"] = 3


class Undecorated(Sound):
    pass


@dataclass(frozen=True, kw_only=True)
class NoBounds(Plugin):
    size: Annotated[int, "how large"] = 3


@dataclass(frozen=True, kw_only=True)
class NoMeaning(Plugin):
    size: Annotated[int, Range(1, 9)] = 3


@dataclass(frozen=True, kw_only=True)
class NoKnob(Plugin):
    size: int = 3


@dataclass(frozen=True, kw_only=True)
class Lax(Plugin):
    """Never checks what it is given."""

    size: Annotated[int, Range(1, 9), "how large"] = 3

    def __post_init__(self):
        pass


@dataclass(frozen=True, kw_only=True)
class Clamping(Plugin):
    """Takes another value than it is given."""

    size: Annotated[int, Range(1, 9), "how large"] = 3

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "size", min(self.size, 5))


@dataclass(frozen=True, kw_only=True)
class Bad(Plugin):
    size: Annotated[int, Range(1, 9), "how large"] = 30


RULES = [name for name in vars(PluginContract) if name.startswith("test_")]


def broken(cls):
    """Return the rules that `cls` breaks."""
    contract, found = PluginContract(), []
    contract.shelf = Shelf(cls)
    for rule in RULES:
        try:
            getattr(contract, rule)("thing")
        except (Exception, pytest.fail.Exception):
            found.append(rule.removeprefix("test_"))
    return found


def test_a_sound_plugin_keeps_all():
    assert len(RULES) >= 8
    assert broken(Sound) == []


@pytest.mark.parametrize(
    ("cls", "rule"),
    [
        (Positional, "is_a_frozen_keyword_only_dataclass"),
        (Undecorated, "is_a_frozen_keyword_only_dataclass"),
        (NoBounds, "every_knob_has_bounds_a_meaning_and_a_sound_default"),
        (NoMeaning, "every_knob_has_bounds_a_meaning_and_a_sound_default"),
        (NoKnob, "every_knob_has_bounds_a_meaning_and_a_sound_default"),
        (Bad, "every_knob_has_bounds_a_meaning_and_a_sound_default"),
        (Lax, "refuses_what_is_out_of_bounds"),
        (Clamping, "takes_what_is_within_bounds"),
    ],
)
def test_a_broken_rule_is_noticed(cls, rule):
    assert rule in broken(cls)
