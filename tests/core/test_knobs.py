from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.core.errors import KnobError
from fettle.core.knobs import Choice, Range, Text, knobs_of
from fettle.core.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Sander(Plugin):
    plugin_name: ClassVar[str] = "sander"

    grain: Annotated[int, Range(1, 400, "grit"), "how coarse"] = 120
    force: Annotated[float, Range(0, 1.5), "how hard"] = 0.5
    belt: Annotated[str, Choice("cloth", "paper"), "what it is made of"] = "cloth"
    wet: Annotated[bool, Choice(False, True), "with water"] = False
    name_of_owner: Annotated[str, Text("a name"), "whose it is"] = ""
    unseen: object = None


def test_declares_each_knob_once_and_in_order():
    names = [knob.name for knob in knobs_of(Sander)]
    assert names == ["grain", "force", "belt", "wet", "name_of_owner"]
    grain = knobs_of(Sander)[0]
    assert (grain.type, grain.default, grain.meaning) == (int, 120, "how coarse")
    assert str(grain.bounds) == "1 … 400 grit"
    assert str(knobs_of(Sander)[2].bounds) == "'cloth' | 'paper'"
    assert str(knobs_of(Sander)[4].bounds) == "a name"


@given(st.floats())
def test_a_range_is_closed_and_takes_finite_numbers_only(value):
    inside = 0 <= value <= 1.5  # False for NaN
    if inside:
        assert Sander(force=value).force == value
    else:
        with pytest.raises(KnobError, match="force"):
            Sander(force=value)


@given(st.integers())
def test_a_range_of_integers(value):
    if 1 <= value <= 400:
        assert Sander(grain=value).grain == value
    else:
        with pytest.raises(KnobError, match="1 to 400"):
            Sander(grain=value)


def test_an_integer_stands_for_a_float_and_becomes_one():
    force = Sander(force=1).force
    assert force == 1.0
    assert type(force) is float
    assert str(Sander(force=1)) == "sander(force=1.0)"


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("grain", 1.0),
        ("grain", True),
        ("grain", "1"),
        ("grain", None),
        ("force", True),
        ("force", "0.5"),
        ("force", [0.5]),
        ("belt", "steel"),
        ("belt", 1),
        ("wet", 1),
        ("wet", "yes"),
        ("name_of_owner", 3),
    ],
)
def test_another_type_is_refused(knob, value):
    with pytest.raises(KnobError) as caught:
        Sander(**{knob: value})
    assert f"`sander({knob}=…)` expects" in str(caught.value)
    assert repr(value) in str(caught.value)


def test_the_message_names_options_and_meaning():
    with pytest.raises(KnobError, match=r"one of 'cloth', 'paper' \(what it is made of\)"):
        Sander(belt="steel")


def test_a_plugin_prints_what_differs_from_its_defaults():
    assert str(Sander()) == "sander"
    assert str(Sander(belt="paper", grain=80)) == "sander(grain=80, belt='paper')"


def test_values_hold_defaults_and_but_changes_some():
    sander = Sander(grain=80)
    assert sander.values() == {
        "grain": 80,
        "force": 0.5,
        "belt": "cloth",
        "wet": False,
        "name_of_owner": "",
    }
    assert sander.but(wet=True) == Sander(grain=80, wet=True)
    with pytest.raises(KnobError):
        sander.but(grain=0)


def test_a_field_without_annotation_is_no_knob():
    assert Sander(unseen=1).values() == Sander().values()
