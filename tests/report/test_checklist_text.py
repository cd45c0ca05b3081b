"""The checklist as text: one line a check, an outcome that can't be missed."""

from fettle import report

LATENCY = {"p50": 1.234, "p95": 2.0, "p99": None}


def checks(*passed):
    names = ("golden", "accuracy", "memory")
    rows = [{"name": n, "passed": p, "text": "as told"} for n, p in zip(names, passed, strict=True)]
    return {"checks": rows, "latency_ms": {"1": LATENCY}}


def test_all_passed():
    lines = report.checklist_text(checks(True, True, None)).splitlines()
    assert lines[0].split() == ["pass", "golden", "as", "told"]
    assert lines[2].startswith("–")
    assert "p50 1.23 ms" in lines[4]
    assert "p99 –" in lines[4]
    assert lines[-1].startswith("PASS")


def test_what_failed_is_named_at_the_end():
    text = report.checklist_text(checks(True, False, False))
    assert text.splitlines()[-1].startswith("FAIL: accuracy, memory")


def test_long_lines_are_folded():
    found = checks(True, True, True)
    found["checks"][0]["text"] = "word " * 60
    assert max(map(len, report.checklist_text(found).splitlines())) <= 120
