"""The dashboard as a reader meets it: by mouse, by keyboard, on a phone, in the dark, live."""

from __future__ import annotations

import contextlib
import runpy
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from fettle.monitor.dashboard import fragment, page, renewed

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SAMPLE = Path(__file__).parents[1] / "monitor" / "dashboard" / "sample.py"
CONTRAST = runpy.run_path(str(Path(__file__).with_name("test_report_in_browser.py")))["CONTRAST"]
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
NAMES = ["healthy", "trouble", "empty"]
PLOTS = "main .plot:visible"


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return runpy.run_path(str(SAMPLE))["states"](tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def pages(states, tmp_path_factory):
    """The page of each state, as a file."""
    folder = tmp_path_factory.mktemp("dashboard")
    found = {}
    for name, state in states.items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(page(state), "utf-8")
    return found


@pytest.fixture
def opened(browser, pages):
    """Open a page in a window of its own; `page.seen` holds what it asked for and complained of."""
    contexts = []

    def open_one(name="trouble", width=1100, url="", **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        found = context.new_page()
        found.seen = {"requests": [], "complaints": []}
        found.on("request", lambda request: found.seen["requests"].append(request.url))
        found.on("console", lambda message: found.seen["complaints"].append(message.text))
        found.on("pageerror", lambda error: found.seen["complaints"].append(str(error)))
        found.goto(url or pages[name].as_uri())
        return found

    yield open_one
    for context in contexts:
        context.close()


def focused(found):
    return found.evaluate("document.activeElement.getAttribute('aria-label') || ''")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_asks_for_nothing_and_complains_of_nothing(opened, pages, name):
    found = opened(name)
    found.keyboard.press("Tab")
    assert found.seen == {"requests": [pages[name].as_uri()], "complaints": []}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_never_scrolls_sideways(opened, name):
    found = opened(name)
    for width in (320, 390, 768, 1280):
        found.set_viewport_size({"width": width, "height": 800})
        inner, outer = found.evaluate(WIDTHS)
        assert inner <= outer, width


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_health_is_seen_first(opened, name):
    found = opened(name, 390)
    health = found.locator("h1")
    assert found.locator("h1, h2").first.inner_text() == health.inner_text()
    assert health.bounding_box()["y"] + health.bounding_box()["height"] < 400


def test_the_keyboard_reaches_every_drawing_and_every_window(opened):
    found = opened()
    tip = found.locator("#tip")
    plots = found.locator(PLOTS)
    for number in range(plots.count()):
        points = plots.nth(number).locator(".point")
        stops = plots.nth(number).locator(".point[tabindex='0']")
        assert stops.count() == 1
        stops.first.focus()
        assert focused(found) == points.last.get_attribute("aria-label")
        found.keyboard.press("Home")
        assert focused(found) == points.first.get_attribute("aria-label")
        found.keyboard.press("ArrowRight")
        label = points.nth(1).get_attribute("aria-label")
        assert focused(found) == label
        assert tip.is_visible()
        assert points.nth(1).get_attribute("data-lines").split("\n")[0] in tip.inner_text()
    found.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_focused_window_is_seen_to_be_focused(opened):
    found = opened()
    reach = found.locator(f"{PLOTS} .point").first.locator(".reach")
    before = reach.evaluate("e => getComputedStyle(e).stroke")
    found.locator(f"{PLOTS} .point").first.focus()
    assert reach.evaluate("e => getComputedStyle(e).stroke") != before


def test_the_mouse_brings_up_a_window(opened):
    found = opened()
    plot = found.locator(PLOTS).first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    found.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "p50" in found.locator("#tip").inner_text()
    found.mouse.move(2, 2)
    assert found.locator("#tip").is_hidden()


def test_a_tap_brings_up_a_window_within_the_screen(opened):
    found = opened(width=390, has_touch=True, is_mobile=True)
    plot = found.locator(PLOTS).first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    found.touchscreen.tap(box["x"] + box["width"] - 40, box["y"] + box["height"] / 2)
    place = found.locator("#tip").bounding_box()
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= 390


def test_links_lead_to_their_sections(opened):
    found = opened("trouble")
    for link in found.locator("nav a").all():
        link.click()
        target = link.get_attribute("href")
        assert found.locator(target).bounding_box()["y"] < 800


@pytest.mark.parametrize("name", NAMES)
def test_text_and_marks_stand_out(opened, name):
    found = opened(name)
    for scheme in ("light", "dark"):
        found.emulate_media(color_scheme=scheme)
        texts = "h1, h2, h3, p, th, td, dt, dd, small, a, b, code, em, strong, span, .tag"
        worst, where = found.evaluate(CONTRAST, texts)
        assert worst >= 4.5, (scheme, where)
        worst, where = found.evaluate(CONTRAST, "svg text")
        assert worst >= 4.5, (scheme, where)


OVERLAPS = """() => [...document.querySelectorAll("main svg")].flatMap((svg) => {
  const all = [...svg.querySelectorAll("text")].filter((e) => e.getClientRects().length)
    .map((e) => [e.textContent, e.getBoundingClientRect()]);
  const touch = (a, b) => a.left < b.right && b.left < a.right
    && a.top + 3 < b.bottom && b.top + 3 < a.bottom;
  const pairs = all.flatMap(([text, a], i) => all.slice(i + 1)
    .filter(([, b]) => touch(a, b)).map(([other]) => `${text} on ${other}`));
  const wide = document.documentElement.clientWidth;
  const off = all.filter(([, a]) => a.left < 0 || a.right > wide);
  return [...pairs, ...off.map(([text]) => `${text} is off`)];
})"""


@pytest.mark.parametrize("name", ["healthy", "trouble"])
def test_no_two_texts_of_a_drawing_overlap(opened, name):
    found = opened(name)
    for width in (390, 1280):
        found.set_viewport_size({"width": width, "height": 800})
        assert found.evaluate(OVERLAPS) == [], width


def test_the_dark_scheme_turns_paper_and_ink(opened):
    color = "getComputedStyle(document.body).backgroundColor"
    assert opened(color_scheme="dark").evaluate(color) == "rgb(20, 23, 26)"


def test_without_scripts_the_page_still_tells_everything(opened):
    found = opened(java_script_enabled=False)
    assert found.get_by_text("Stop B").first.is_visible()
    assert found.locator(PLOTS).first.is_visible()


def test_the_page_prints(opened):
    found = opened(width=718)  # A4 less the usual margins
    found.emulate_media(media="print")
    inner, outer = found.evaluate(WIDTHS)
    assert inner <= outer
    assert found.pdf().startswith(b"%PDF")


@contextlib.contextmanager
def serving(box):
    """A server whose dashboard shows the state that lies in the box."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state = box.state
            if state is None:
                self.send_error(503)
                return
            part = self.path == "/?part=main"
            body = (fragment(state) if part else page(state, every_s=0.1)).encode()
            mark = f'"{id(state)}"'
            box.seen.append((self.path, self.headers.get("If-None-Match")))
            known = part and self.headers.get("If-None-Match") == mark
            body = b"" if known else body
            self.send_response(304 if known else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", mark)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_live_page_renews_itself_where_the_reader_is(opened, states):
    box = SimpleNamespace(state=states["healthy"], seen=[])
    with serving(box) as url:
        found = opened(url=url)
        found.locator("nav a").nth(2).focus()
        found.evaluate("window.scrollTo(0, 300)")
        box.state = states["trouble"]
        found.wait_for_selector("h1:has-text('fail')")
        assert found.evaluate("document.activeElement.textContent") == "Drift"
        assert found.evaluate("window.scrollY") == 300
        assert "fail" in found.locator("#told").text_content()
        assert "fail" in found.title()
        found.locator(f"{PLOTS} .point").last.focus()
        assert found.locator("#tip").is_visible()
        found.wait_for_timeout(400)  # what has the focus keeps it over several renewals
        assert found.locator("#tip").is_visible()
        assert focused(found) == found.locator(f"{PLOTS} .point").last.get_attribute("aria-label")
    assert any(asked for path, asked in box.seen if path == "/?part=main")
    assert {path for path, _ in box.seen} <= {"/", "/?part=main", "/favicon.ico"}


def test_a_server_that_does_not_answer_is_told(opened, states):
    box = SimpleNamespace(state=states["healthy"], seen=[])
    with serving(box) as url:
        found = opened(url=url)
        box.state = None
        found.wait_for_selector(".stale")
        box.state = renewed(states["healthy"])
        found.wait_for_selector(".eyebrow:not(.stale)")
