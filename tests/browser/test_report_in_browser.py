"""The report as a reader meets it: by mouse, by keyboard, on a phone, in the dark, on paper."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

POINTS = ".plot:visible .point"
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
# WCAG 2.1: relative luminance and contrast of what a reader sees
CONTRAST = """(selector) => {
  const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const luminance = (text) => channels(text)
    .map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return color !== "rgba(0, 0, 0, 0)" ? color : behind(element.parentElement);
  };
  return [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length)
    .map((element) => {
      const style = getComputedStyle(element);
      const ink = element instanceof SVGElement ? style.fill : style.color;
      const [a, b] = [luminance(ink), luminance(behind(element))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 80)];
    }).reduce((worst, found) => (found[0] < worst[0] ? found : worst), [21, "nothing"]);
}"""


def over(page, point):
    """Move the mouse to the middle of a point."""
    point.scroll_into_view_if_needed()
    box = point.locator(".reach").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_the_page_asks_for_nothing_and_complains_of_nothing(visit, files):
    page = visit()
    over(page, page.locator(POINTS).first)
    page.keyboard.press("Tab")
    assert page.seen == {"requests": [files["sample"].as_uri()], "complaints": []}


@pytest.mark.parametrize(
    ("sample", "word"), [("sample", "Pass"), ("open", "Inconclusive"), ("failed", "Fail")]
)
def test_the_verdict_is_seen_first(visit, sample, word):
    page = visit(sample)
    assert page.locator("h2").first.inner_text() == word
    assert page.locator(".verdict .sentence").bounding_box()["y"] < 400
    assert page.locator(".verdict .picture").is_visible()


def test_the_mouse_brings_up_the_recipe_of_every_point(visit):
    page = visit()
    tip, points = page.locator("#tip"), page.locator(POINTS)
    assert tip.is_hidden()
    for index in range(points.count()):
        over(page, points.nth(index))
        assert points.nth(index).get_attribute("data-recipe") in tip.inner_text()
    page.mouse.move(2, 2)
    assert tip.is_hidden()


def test_the_keyboard_brings_up_the_recipe_of_every_point(visit):
    page = visit()
    tip, points = page.locator("#tip"), page.locator(POINTS)
    page.keyboard.press("Tab")
    for index in range(points.count()):
        assert points.nth(index).evaluate("e => e === document.activeElement")
        assert points.nth(index).get_attribute("data-recipe") in tip.inner_text()
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "scroll"


def test_the_focused_point_is_ringed(visit):
    page = visit()
    reach = page.locator(POINTS).first.locator(".reach")
    before = reach.evaluate("e => getComputedStyle(e).stroke")
    page.keyboard.press("Tab")
    assert reach.evaluate("e => getComputedStyle(e).stroke") != before


def test_a_tap_brings_up_the_recipe(visit):
    page = visit(width=360, has_touch=True, is_mobile=True)
    point = page.locator(POINTS).last
    point.scroll_into_view_if_needed()
    box = point.locator(".reach").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("#tip")
    assert point.get_attribute("data-recipe") in tip.inner_text()
    place = tip.bounding_box()
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= 360


@pytest.mark.parametrize("width", [360, 768, 1100])
@pytest.mark.parametrize("sample", ["sample", "open", "failed"])
def test_the_page_never_scrolls_sideways(visit, sample, width):
    inner, outer = visit(sample, width).evaluate(WIDTHS)
    assert inner <= outer


def test_wide_tables_scroll_in_their_own_box_by_keyboard_too(visit):
    box = visit(width=360).locator(".scroll").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    assert box.get_attribute("tabindex") == "0"


def test_no_two_texts_of_a_drawing_overlap(visit):
    for width in (360, 1100):
        page = visit(width=width)
        boxes = page.locator("svg:visible text").evaluate_all(
            "all => all.map(e => [e.textContent, e.getBoundingClientRect().toJSON()])"
        )
        for i, (text, a) in enumerate(boxes):
            for other, b in boxes[i + 1 :]:
                apart = (
                    a["right"] <= b["left"]
                    or b["right"] <= a["left"]
                    or a["bottom"] <= b["top"] + 3
                    or b["bottom"] <= a["top"] + 3
                )
                assert apart, (text, other, width)


def test_the_dark_scheme_turns_paper_and_ink(visit):
    colors = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light, dark = (visit(color_scheme=scheme).evaluate(colors) for scheme in ("light", "dark"))
    assert light == ["rgb(255, 255, 255)", "rgb(26, 29, 33)"]
    assert dark == ["rgb(20, 23, 26)", "rgb(232, 234, 237)"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sample", ["sample", "open", "failed"])
def test_text_and_marks_stand_out(visit, sample, scheme):
    page = visit(sample, color_scheme=scheme)
    texts = "h1, h2, p, th, td, dt, dd, small, caption, code, .quiet, .badge, .met, .missed, .tag"
    worst, where = page.evaluate(CONTRAST, texts)
    assert worst >= 4.5, where
    worst, where = page.evaluate(CONTRAST, "svg text")
    assert worst >= 4.5, where
    worst, where = page.evaluate(CONTRAST, ".point > :not(.reach):not(.ring):not(.below)")
    assert worst >= 3, where


def test_without_scripts_the_page_still_tells_everything(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("h2").first.inner_text() == "Pass"
    assert page.get_by_text("prune.channels(ratio=0.7) @ openvino").first.is_visible()


def test_reduced_motion_is_heeded(visit):
    duration = "getComputedStyle(document.querySelector('.reach')).transitionDuration"
    assert visit(reduced_motion="reduce").evaluate(duration) == "0s"
    assert visit(reduced_motion="no-preference").evaluate(duration) != "0s"


def test_the_page_prints(visit):
    page = visit(width=718)  # A4 less the usual margins
    page.emulate_media(media="print")
    inner, outer = page.evaluate(WIDTHS)
    assert inner <= outer
    assert page.locator(".scroll").first.evaluate("e => getComputedStyle(e).overflowX") == "visible"
    assert page.pdf().startswith(b"%PDF")
