"""The page of `fettle bench --html` as a reader meets it."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

POINTS = ".plot:visible .point"
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


def test_the_page_asks_for_nothing_and_complains_of_nothing(visit, files):
    page = visit("bench")
    page.keyboard.press("Tab")
    assert page.seen == {"requests": [files["bench"].as_uri()], "complaints": []}


@pytest.mark.parametrize("width", [360, 768, 1100])
def test_the_page_never_scrolls_sideways(visit, width):
    inner, outer = visit("bench", width).evaluate(WIDTHS)
    assert inner <= outer


def test_the_keyboard_brings_up_the_numbers_of_every_mark(visit):
    page = visit("bench")
    tip, points = page.locator("#tip"), page.locator(POINTS)
    assert points.count() == 5
    page.keyboard.press("Tab")
    for index in range(points.count()):
        assert points.nth(index).evaluate("e => e === document.activeElement")
        assert points.nth(index).get_attribute("data-latency") in tip.inner_text()
        page.keyboard.press("ArrowRight")


def test_the_mouse_brings_up_the_numbers(visit):
    page = visit("bench")
    point = page.locator(POINTS).nth(2)
    point.scroll_into_view_if_needed()
    box = point.locator(".reach").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert point.get_attribute("data-recipe") in page.locator("#tip").inner_text()


def test_faster_stands_to_the_left_on_every_width(visit):
    for width in (360, 1100):
        boxes = visit("bench", width).locator(".point .reach")
        left = [boxes.nth(i).bounding_box()["x"] for i in range(3)]
        assert left == sorted(left)
        assert left[2] > left[0]


def test_without_scripts_the_page_still_tells_everything(visit):
    page = visit("bench", java_script_enabled=False)
    assert page.get_by_text("is the fastest").first.is_visible()
    assert page.locator("tbody tr.best").count() == 2
    assert page.get_by_text("not <b>installed</b>").is_visible()


def test_the_dark_scheme_turns_paper_and_ink(visit):
    color = "getComputedStyle(document.body).backgroundColor"
    assert visit("bench", color_scheme="dark").evaluate(color) == "rgb(20, 23, 26)"
