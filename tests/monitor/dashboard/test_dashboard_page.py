"""The page as text: what it says, what it may do, and that nothing of a log gets out of hand."""

import copy
import html
import json
import re

import pytest

from fettle.monitor.dashboard import fragment, page


def text_of(document):
    """What a reader sees, without the tags."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", document, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body))).replace("\xa0", " ")


@pytest.mark.parametrize("name", ["healthy", "trouble", "empty"])
def test_a_state_is_json_and_the_page_needs_nothing_else(states, name):
    state = json.loads(json.dumps(states[name], allow_nan=False))
    document = page(state)
    assert "http://" not in document.replace("http://www.w3.org", "")
    assert "https://" not in document
    assert document.count("<script") == document.count("<style") == 1
    assert not re.search(r"\son\w+=|\sstyle=", document)


def test_a_file_is_forbidden_the_network_and_a_live_page_asks_its_server_alone(states):
    assert "connect-src" not in page(states["empty"])
    live = page(states["empty"], every_s=5)
    assert "default-src 'none'" in live
    assert "connect-src 'self'" in live
    assert 'data-every="5"' in live


def test_every_section_is_there_whatever_is_known(states):
    for state in states.values():
        found = re.findall(r'<section id="(\w+)"', fragment(state))
        assert found == ["latency", "traffic", "drift", "shadow", "ab", "cost", "alerts"]


def test_an_empty_log_says_how_each_section_is_filled(states):
    told = text_of(page(states["empty"]))
    assert "No predictions yet" in told
    for hint in ("--shadow", "--ab", "--rules", "give the bundle"):
        assert hint in told


def test_the_numbers_of_the_state_are_on_the_page(states):
    state = states["healthy"]
    told = text_of(page(state))
    n = sum(series["all"]["n"] for series in state["series"] if series["route"] != "shadow")
    assert f"Healthy: {n:,} requests" in told
    ledger = state["cost"][0]
    assert f"costs {ledger['ratio']['value']:.3g} times less" in told
    bound = state["shadow"][0]["accuracy_loss_at_most"]
    assert f"{100 * bound:.2f} pp lower" in told
    assert "as they should be" in told


def test_trouble_is_told_first_with_its_cause_and_what_to_do(states):
    found = fragment(states["trouble"])
    first = text_of(found[: found.index("</h1>")])
    assert "5.9 % of requests to digits <b> fail" in first
    told = text_of(found)
    assert "Only the disagreement with the original moves: the bundle is damaged: roll back" in told
    assert "Stop B" in told
    assert "windows past the threshold" in told
    assert "broken" in told


def test_names_from_outside_stay_text(states):
    state = copy.deepcopy(states["healthy"])
    bad = "<script>alert(1)</script>\"'><b>"
    state["series"][0]["model"] = bad
    state["failures"][0]["error"] = bad
    state["cost"][0]["model"] = state["shadow"][0]["model"] = state["ab"][0]["model"] = bad
    state["source"] = state["drift"]["features"][0]["name"] = bad
    document = page(state)
    assert "<script>alert" not in document
    assert "\"'><b>" not in document


def test_every_window_can_be_asked_for_its_numbers(states):
    state = states["healthy"]
    found = fragment(state)
    windows = len({w["start"] for series in state["series"] for w in series["windows"]})
    wide = re.search(
        r'<svg class="plot wide"[^>]*aria-label="Requests a second".*?</svg>', found, re.DOTALL
    )
    points = re.findall(r'class="point" tabindex="-1" role="img" aria-label="([^"]+)"', wide[0])
    assert len(points) == windows
    assert all("requests" in point for point in points)


def test_a_share_is_never_without_its_interval(states):
    found = text_of(fragment(states["trouble"]))
    assert re.search(r"digits, b version 1, c4c4c4c4 [\d,]+ 4\.\d % \[[\d.]+, [\d.]+\]", found)


def test_the_promise_is_of_the_bundle_that_made_it(states):
    kept = {series["route"]: series["promise"] for series in states["trouble"]["series"]}
    assert kept["a"] is not None
    assert kept["b"] is kept["shadow"] is None


def test_accuracy_is_told_with_how_it_is_known(states):
    rate = {"estimate": 0.93, "low": 0.91, "high": 0.95}
    windows = [
        {"start": 60.0 * at, "n": 9, "labelled": 3, "by_labels": at and rate, "by_confidence": rate}
        for at in range(3)
    ]
    known = {"n": 27, "labelled": 1200, "by_labels": rate, "by_confidence": rate,
             "calibrated_on": "labels", "assumptions": ["one", "two"],
             "windows": windows}  # fmt: skip
    found = fragment({**states["healthy"], "accuracy": known})
    assert "93.0 % right [91.0, 95.0], by 1,200 labels." in text_of(found)
    assert "This assumes: one; two." in text_of(found)
    assert 'aria-label="Share of right answers"' in found
    little = {**known, "by_labels": None, "by_confidence": None, "windows": []}
    assert "right [" not in text_of(fragment({**states["healthy"], "accuracy": little}))


def test_features_that_are_not_looked_at_are_named(states):
    state = states["healthy"]
    drift = {**state["drift"], "skipped": {"age": "windows don't hold it"}}
    assert "age (windows don't hold it)" in text_of(fragment({**state, "drift": drift}))
