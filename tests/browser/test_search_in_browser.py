"""Why a winner won, as a reader meets it: on a phone, in the dark, without scripts."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.mark.parametrize("width", [360, 768, 1100])
def test_the_page_never_scrolls_sideways(visit, width):
    inner, outer = visit("search", width).evaluate(WIDTHS)
    assert inner <= outer


@pytest.mark.parametrize("width", [360, 1100])
def test_bars_are_as_long_as_their_layers_take(visit, width):
    page = visit("search", width)
    rows = page.locator(".changes li")
    assert rows.count() == 24
    widths = rows.locator(".was").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().width)"
    )
    whole = page.locator(".changes svg").first.bounding_box()["width"]
    assert max(widths) == pytest.approx(whole, abs=1)
    assert min(widths) > 0
    gone = rows.filter(has_text="gone").first
    assert gone.locator(".now").bounding_box() is None or (
        gone.locator(".now").bounding_box()["width"] == 0
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_before_and_after_stand_apart(visit, scheme):
    page = visit("search", color_scheme=scheme)
    fill = "(name) => getComputedStyle(document.querySelector(name)).fill"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colors = {page.evaluate(fill, name) for name in (".changes .was", ".changes .now")}
    assert len(colors | {paper}) == 3


def test_it_complains_of_nothing_and_works_without_scripts(visit):
    assert visit("search").seen["complaints"] == []
    page = visit("search", java_script_enabled=False)
    assert page.get_by_text("Why it won").is_visible()
    assert page.get_by_text("having lost 12.00 pp").is_visible()
