from __future__ import annotations

import re

import pytest

from fettle import report


def cells(card):
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", card, re.MULTILINE)
    return dict(rows)


def test_the_card_says_what_how_good_and_how_fast(result):
    card = report.card(result)
    found = cells(card)
    assert card.startswith("# cifar:resnet20: distilled \\+ QAT on openvino\n")
    assert "**Pass.**" in card
    assert found["recipe"].startswith("`distill.logits(student='cifar:resnet8'")
    assert found["top1"] == "97.3 % \\[94.8, 98.8], n = 450, test split"
    assert found["drop"] == "0.67 pp \\[−0.21, 1.55], n = 450, tango"
    assert found["budget"] == "2 pp at 95 % confidence"
    assert found["p50"] == "0.19 ms"
    assert found["over FP32 on the same runtime"] == "7.4× \\[7.0, 7.8]"
    assert found["file"] == "96 kB"
    assert found["of the baseline's"] == "8.7 %"


def test_validity_is_stamped_with_the_processor(result):
    assert "Proven on `AMD EPYC 9R14` only" in report.card(result)


def test_lineage_names_the_command_and_the_data(result):
    found = cells(report.card(result))
    assert found["made by"] == "`fettle demo --out runs/demo`"
    assert found["test split"] == "`a4e624d686e03ed2`"


def test_sparsity_is_called_a_size_feature(result):
    text = "Zero weights without a sparse kernel save size, not time."
    assert text not in report.card(result)
    result["best"]["sparsity"] = 0.7
    assert text in report.card(result)


def test_the_card_admits_that_nothing_was_found(result):
    card = report.card(result | {"best": None, "verdict": "fail"})
    assert card.startswith("# cifar:resnet20: no artifact")
    assert "**Fail.** No artifact was proven" in card


def test_hostile_names_stay_text(result):
    result["model"] = "<img src=x> [a](javascript:b) | `c`\n# d"
    card = report.card(result)
    assert "<img" not in card
    assert "[a](" not in card
    assert "\n# d" not in card


@pytest.mark.parametrize("empty", [{}, {"best": {}}, {"best": {"recipe": "a|b`c"}}])
def test_a_card_of_nothing_is_still_a_card(empty):
    assert report.card(empty).startswith("# model: ")
