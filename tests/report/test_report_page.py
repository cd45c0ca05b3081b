from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from fettle import report
from fettle.core.errors import InputError

_VOID = {"meta", "link", "br", "rect", "line", "path", "circle", "img", "input", "hr"}
_HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


class Outline(HTMLParser):
    """Collects tags, attributes, headings and text; fails on tags that don't nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.headings, self.text, self.open = [], [], [], "", []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2", "span") and data.strip():
            self.headings.append(data.strip())
        self.text += data


def test_the_page_nests_and_keeps_the_order(result):
    text = Outline(report.render(result)).text
    order = ["Pass", "The frontier", "Techniques", "Latency", "What each stage cost",
             "Machine, data, how to reproduce", "Refused or failed"]  # fmt: skip
    places = [text.rindex(f"\n{title}\n") if title != "Pass" else text.index(title)
              for title in order]  # fmt: skip
    assert places == sorted(places)


def test_nothing_is_fetched(result):
    page = report.render(result)
    parsed = Outline(page)
    links = [value for name, value in parsed.attributes if name in ("src", "href")]
    assert links == ["data:,"]
    assert not re.search(r"https?:|@import|url\((?!#)", page)


def test_the_policy_names_exactly_the_script_and_the_style(result):
    page = report.render(result)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_no_inline_styles_or_handlers_that_the_policy_would_block(result):
    names = {name for name, _ in Outline(report.render(result)).attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]


def hostile(value):
    """Replace every text of a result by markup."""
    if isinstance(value, dict):
        return {k: hostile(v) for k, v in value.items()} | {_HOSTILE: _HOSTILE}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return _HOSTILE if isinstance(value, str) else value


def test_markup_in_a_result_stays_text(result):
    page = report.render(hostile(result))
    parsed = Outline(page)
    assert parsed.tags.count("script") == 1
    assert "img" not in parsed.tags
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert _HOSTILE in parsed.text


def test_every_point_carries_its_recipe(result):
    parsed = Outline(report.render(result))
    recipes = [value for name, value in parsed.attributes if name == "data-recipe"]
    shown = [trial for trial in result["trials"] if not trial.get("refused")]
    assert len(recipes) == 2 * len(shown)  # one drawing for desks, one for phones
    assert "quantize.aware(epochs=2) @ openvino" in recipes


def test_every_table_has_a_caption_and_every_drawing_a_title(result):
    page = report.render(result)
    assert page.count("<table") == page.count("<caption")
    for drawing in re.findall(r'<svg class="(?:plot|picture)".*?</svg>', page, re.DOTALL):
        assert "<title" in drawing
        assert "<desc" in drawing


def test_numbers_are_formatted_for_people(result):
    text = Outline(report.render(result)).text.replace("\u00a0", " ")
    for shown in ("312 kB", "7.4×", "0.10 pp", "0.67 pp", "2 min 3 s", "1,000"):
        assert shown in text


def test_a_missing_p99_is_a_dash_with_its_reason(result):
    page = report.render(result)
    reason = "p99 is shown from 1,000 samples on; the largest such run has 300."
    assert f'<abbr title="{reason}">–</abbr>' in page
    assert f'<p class="note">{reason}</p>' in page


def test_the_warning_of_a_noisy_machine_is_shown(result):
    assert "<b>Mind:</b>" not in report.render(result)
    assert "this machine shook" in report.render(result | {"warning": "this machine shook"})


def prune(value, drop):
    """Return `value` without the keys that `drop` names."""
    if isinstance(value, dict):
        return {k: prune(v, drop) for k, v in value.items() if k != drop}
    return [prune(v, drop) for v in value] if isinstance(value, list) else value


def keys(value):
    """Return every key that occurs anywhere."""
    if isinstance(value, dict):
        return set(value) | {k for v in value.values() for k in keys(v)}
    return {k for v in value for k in keys(v)} if isinstance(value, list) else set()


def test_any_one_key_may_be_missing(result):
    for key in sorted(keys(result)):
        without = prune(result, key)
        Outline(report.render(without))
        report.table(without)
        report.card(without)


@pytest.mark.parametrize(
    "junk", [None, "text", [], {}, -1, 0, math.nan, 1e308, 1e17, 5e-324, 10**400, True, [None]]
)
def test_any_one_value_may_be_junk(result, junk):
    for key in sorted(set(result) - {"schema"}):
        report.render(result | {key: junk})
    for key in sorted(result["best"]):
        spoiled = result["best"] | {key: junk}
        report.render(result | {"best": spoiled, "baseline": spoiled, "trials": [spoiled]})
    metric = {"value": junk, "low": junk, "high": junk}
    latency = dict.fromkeys(("p50", "p90", "p95", "p99", "mean", "n", "batch"), junk)
    trial = result["best"] | {"metric": metric, "drop": metric, "latency_ms": latency}
    spoiled = result | {"best": trial, "trials": [trial]}
    assert report.render(spoiled)
    assert report.table(spoiled)
    assert report.card(spoiled)


def test_write_puts_the_page_beside_the_result(result, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    path = report.write(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == report.render(result)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "result.json"]


def test_a_folder_without_a_result_is_refused_with_the_mend(tmp_path):
    with pytest.raises(InputError, match=r"holds no `result.json`.*fettle demo --out"):
        report.write(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000, "[]"])
def test_a_file_that_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "result.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()
