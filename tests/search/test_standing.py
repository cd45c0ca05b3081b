"""How a search stands: which trials are on the frontier, and what a terminal shows."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from fettle.search.standing import MOST, Line, Standing, clock, drawn, standing


def trial(recipe, ms, drop, promise, takes="onnx"):
    row = {"comparable_ms": ms, "drop": {"value": drop}, "promise": promise}
    return SimpleNamespace(recipe=recipe, row=row, runtime=SimpleNamespace(takes=takes))


def search(trials, leader=None, left=math.inf, spent=5.0):
    return SimpleNamespace(
        trials=trials,
        base=trials[0] if trials else None,
        leader=leader,
        clock=SimpleNamespace(left=left, spent=spent),
    )


def shown(now, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(drawn(now))
    return console.export_text()


def test_before_anything_was_measured():
    now = standing(search([]))
    assert now == Standing((), 0, 5.0, None)
    assert "measuring the untouched model" in shown(now)


def test_a_trial_that_another_beats_in_both_is_left_out():
    plain, good = trial("@ ort", 10.0, 0.0, 1.0), trial("good @ ort", 2.0, 0.004, 0.9)
    beaten, fast = trial("beaten @ ort", 3.0, 0.02, 0.1), trial("fast @ ort", 1.0, 0.05, 0.0)
    torch = trial("@ pytorch", 0.5, 0.0, 1.0, takes="module")
    now = standing(search([plain, good, beaten, fast, torch], good, left=60.0))
    assert [line.recipe for line in now.lines] == ["fast @ ort", "good @ ort", "@ ort"]
    assert now.best == Line("good @ ort", 2.0, 5.0, 0.004, 0.9, leads=True)
    assert (now.trials, now.left) == (5, 60.0)


def test_a_long_frontier_is_shown_around_the_leader():
    rows = [trial(f"r{i}", 10.0 - i, 0.01 * i, 1.0 - 0.05 * i) for i in range(10)]
    for leader in (rows[0], rows[5], rows[9]):
        lines = standing(search(rows, leader)).lines
        assert len(lines) == MOST
        assert any(line.leads for line in lines)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_picture_holds_what_matters_at_any_width(width):
    line = Line("prune.blocks(ratio=0.5) > [bold]quantize.static[/bold] @ openvino " * 3,
                0.3125, 8.21, 0.006, 0.94, leads=True)  # fmt: skip
    text = shown(Standing((line,), 23, 750.0, 272.0), width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("8.21×", "0.312", "+0.60", "94%", "→"):
        assert part in text
    if width > 80:
        assert "12:30 spent · 4:32 left · 23 trials" in text
        assert "[bold]" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (750, "12:30"), (3723, "1:02:03")]
)
def test_a_clock(seconds, text):
    assert clock(seconds) == text
