import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.core.errors import KnobError, RecipeError, UnknownName
from fettle.core.knobs import Choice, Range
from fettle.core.recipe import Recipe, parse_step
from fettle.core.shelf import PASSES, RUNTIMES, TECHNIQUES

LINE = "distill.logits(temperature=4.0) > prune.channels(ratio=0.25) > quantize.aware @ openvino"


# Loaded before any example is drawn: hypothesis wants no imports of torch inside a strategy.
CLASSES = {s.kind: [s.load(name) for name in s.names()] for s in (TECHNIQUES, PASSES, RUNTIMES)}


def values(knob):
    if isinstance(knob.bounds, Choice):
        return st.sampled_from(knob.bounds.options)
    if isinstance(knob.bounds, Range):
        low, high = knob.bounds.low, knob.bounds.high
        return st.integers(int(low), int(high)) if knob.type is int else st.floats(low, high)
    return st.text(max_size=12) | st.text("'\"\\>@() a", max_size=12)


@st.composite
def plugins(draw, shelf):
    cls = draw(st.sampled_from(CLASSES[shelf.kind]))
    knobs = draw(st.lists(st.sampled_from(cls.knobs()), unique=True)) if cls.knobs() else []
    return cls(**{knob.name: draw(values(knob)) for knob in knobs})


@st.composite
def recipes(draw):
    techniques = draw(st.lists(plugins(TECHNIQUES), max_size=3))
    passes = draw(st.lists(plugins(PASSES), max_size=2))
    runtime = draw(st.none() | plugins(RUNTIMES))
    return Recipe((*techniques, *passes), runtime)


@given(recipes())
@settings(deadline=None, max_examples=150, derandomize=True)
def test_a_printed_recipe_parses_back_to_an_equal_one(recipe):
    again = Recipe.parse(str(recipe))
    assert again == recipe
    assert again.hash() == recipe.hash()
    assert str(again) == str(recipe)


@given(st.text(max_size=40) | st.text("abc.()=>@'\", 1", max_size=40))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_any_text_is_a_recipe_or_a_named_error(line):
    try:
        recipe = Recipe.parse(line)
    except (RecipeError, UnknownName, KnobError):
        return
    assert Recipe.parse(str(recipe)) == recipe


@pytest.mark.parametrize(
    "student",
    [
        "it's",
        'a"b',
        "'>'",
        'it\'s > a "q" @ b',
        "\\'\" > \\",
        "a > b @ c",
        "\\",
        "x\\' > y",
        "\n",
        ")",
    ],
)
def test_text_may_hold_what_separates_steps(student):
    step = TECHNIQUES.make("distill.logits", student=student)
    recipe = Recipe((step, TECHNIQUES.make("quantize.static")), RUNTIMES.make("openvino"))
    assert Recipe.parse(str(recipe)) == recipe


def test_reads_the_line_of_the_design():
    recipe = Recipe.parse(LINE)
    assert [step.name() for step in recipe.steps] == [
        "distill.logits",
        "prune.channels",
        "quantize.aware",
    ]
    assert recipe.steps[1].ratio == 0.25
    assert recipe.runtime.name() == "openvino"
    assert str(recipe) == LINE


def test_spaces_and_empty_parentheses_do_not_matter():
    assert Recipe.parse(" quantize.static() >graph.lower_ort_x86 ") == Recipe.parse(
        "quantize.static > graph.lower_ort_x86"
    )


def test_techniques_and_passes_are_told_apart():
    recipe = Recipe.parse("quantize.static > graph.lower_ort_x86 @ onnxruntime")
    assert [s.name() for s in recipe.techniques] == ["quantize.static"]
    assert [s.name() for s in recipe.passes] == ["graph.lower_ort_x86"]


def test_the_empty_recipe_leaves_the_model_alone():
    assert Recipe.parse("") == Recipe()
    assert str(Recipe()) == ""
    assert str(Recipe.parse("@ onnxruntime")) == "@ onnxruntime"
    assert Recipe.parse("@ onnxruntime").steps == ()


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("prune.chanels", UnknownName, "prune.channels"),
        ("graph.lower_ort", UnknownName, "graph.lower_ort_x86"),
        ("quantize.static @ onnxruntim", UnknownName, "onnxruntime"),
        ("prune.channels(ratio=2)", KnobError, "ratio"),
        ("prune.channels(rate=0.5)", KnobError, "its knobs: "),
        ("prune.channels(0.5)", RecipeError, "by name"),
        ("prune.channels(**{'ratio': 0.5})", RecipeError, "by name"),
        ("prune.channels(ratio=0.5", RecipeError, "expected `name"),
        ("prune.channels(ratio=)", RecipeError, "don't parse"),
        ("prune.channels(ratio=open('x'))", RecipeError, "don't parse"),
        ("prune.channels(ratio=0.5, ratio=0.6)", RecipeError, "`ratio` twice"),
        ("prune.channels >", RecipeError, "empty step"),
        ("> prune.channels", RecipeError, "empty step"),
        ("quantize.static @", RecipeError, "after `@`"),
        ("quantize.static @ openvino @ openvino", RecipeError, "one `@ runtime`"),
        ("graph.lower_ort_x86 > quantize.static", RecipeError, "come last"),
        ("__import__", UnknownName, "__import__"),
        ("__import__('os')", RecipeError, "by name"),
        ("a; b", RecipeError, "expected `name"),
    ],
)
def test_what_is_wrong_is_said(line, error, words):
    with pytest.raises(error) as caught:
        Recipe.parse(line)
    assert words in str(caught.value)


def test_the_hash_knows_defaults_order_and_the_runtime():
    base = Recipe.parse(LINE)
    same = Recipe.parse(LINE.replace("quantize.aware", "quantize.aware(epochs=10)"))
    assert same == base
    assert same.hash() == base.hash()
    others = [
        base.on(None),
        base.on(RUNTIMES.make("openvino", threads=2)),
        Recipe(base.steps[::-1], base.runtime),
        Recipe(base.steps[:2], base.runtime),
        Recipe.parse(LINE.replace("0.25", "0.5")),
    ]
    assert len({base.hash(), *(other.hash() for other in others)}) == 6


def test_the_hash_is_the_same_in_every_process():
    # Frozen: results that were cached under it must be found again.
    assert Recipe.parse("@ onnxruntime").hash() == Recipe.parse("@ onnxruntime(threads=0)").hash()
    assert len(Recipe().hash()) == 16
    assert Recipe().hash() == "4f53cda18c2baa0c"  # SHA-256 of `[]`


def test_on_changes_the_runtime_alone():
    recipe = Recipe.parse(LINE)
    moved = recipe.on(RUNTIMES.make("onnxruntime"))
    assert moved.steps == recipe.steps
    assert str(moved).endswith("@ onnxruntime")


def test_parse_step_reads_techniques_and_passes():
    assert parse_step("graph.lower_ort_x86").name() == "graph.lower_ort_x86"
    assert parse_step(" quantize.static(samples=8)").samples == 8


def test_knobs_are_literals_only(monkeypatch):
    def refuse(*_):
        raise AssertionError("a recipe must not be evaluated")

    monkeypatch.setattr("builtins.eval", refuse)
    assert ast.literal_eval("1") == 1
    with pytest.raises(RecipeError):
        Recipe.parse("prune.channels(ratio=0.5 if True else 0.1)")
