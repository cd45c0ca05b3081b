"""Why a winner won, in the report and on a terminal: rows by value, pages by what they hold."""

import pytest

from fettle import report
from fettle.core.errors import InputError
from fettle.report._record import read_record
from fettle.report._search import MOST_LAYERS, layer_rows, search_info


@pytest.fixture
def searched(result, search_sample):
    return result | {"search": search_sample()}


def test_a_result_that_is_no_search_has_no_such_section(result):
    assert search_info(read_record(result)) is None
    assert "Why it won" not in report.render(result)
    with pytest.raises(InputError, match="says nothing of a search"):
        report.explanation(result)


def test_the_longest_layers_are_shown_in_order_and_the_others_as_one(searched):
    rows = search_info(read_record(searched)).layers
    assert len(rows) == MOST_LAYERS
    assert rows[-1].layer == f"{40 - MOST_LAYERS + 1} others"
    told = searched["search"]["explanation"]["layers"]
    names = [layer["layer"] for layer in told]
    places = [names.index(row.layer) for row in rows[:-1]]
    assert places == sorted(places)
    assert sum(row.before for row in rows) == pytest.approx(sum(r["before_ms"] for r in told))
    assert sum(row.after or 0 for row in rows) == pytest.approx(
        sum(r["after_ms"] or 0 for r in told)
    )


@pytest.mark.parametrize(
    ("before", "after", "change"), [(2.0, 0.5, "4.0×"), (2.0, None, "gone"), (None, 1.0, "new")]
)
def test_what_became_of_a_layer(before, after, change):
    (row,) = layer_rows([{"layer": "a", "before_ms": before, "after_ms": after}])
    assert row.change == change
    assert max(row.before_width, row.after_width) == 100


def test_no_layers_and_layers_without_time():
    assert layer_rows([]) == []
    (row,) = layer_rows([{"layer": "a", "before_ms": 0.0, "after_ms": 0.0}])
    assert (row.before_width, row.after_width) == (0, 0)


def test_the_page_holds_everything(searched):
    page = report.render(searched)
    for part in ("Why it won", "8.2 times", "Time by layer", "layer4.3.conv1", "Lost by stage",
                 "distill.logits(epochs=9)", "Tried and left", "having lost 12.00 pp"):  # fmt: skip
        assert part in page
    assert "no attention &lt;b&gt;heads&lt;/b&gt;" in page


def test_the_text_holds_everything_within_its_width(searched):
    text = report.explanation(searched)
    assert max(map(len, text.splitlines())) <= 120
    for part in ("8.2 times", "others", "gone", "lost by stage", "−21.00 pp", "tried and left"):
        assert part in text


@pytest.mark.parametrize(
    "damage",
    [
        {"layers": None, "stages": 3, "rejected": "x", "why": {}, "unknown": []},
        {"layers": [{}], "stages": [{}], "rejected": [{}], "why": [None, 3], "before": 7},
        {"layers": [{"before_ms": "a", "after_ms": float("nan")}], "unknown": {"layers": "why"}},
    ],
)
def test_a_malformed_explanation_is_drawn_as_far_as_it_goes(searched, damage):
    searched["search"]["explanation"] |= damage
    assert "Why it won" in report.render(searched)
    report.explanation(searched)
