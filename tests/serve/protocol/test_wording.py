"""What came from outside is quoted short and in plain ASCII."""

import pytest

from fettle.serve.protocol.wording import kind_of, listed, shown


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, list(range(10**5)), {"a": "b" * 10**5}, 10**4000, "日本\n\x1b[31m", b"\xff"],
)
def test_quotes_are_short_and_plain(value):
    for text in (shown(value), kind_of(value)):
        assert len(text) < 200
        assert text.isascii()
        assert text.isprintable()


def test_a_few_names_stand_for_many():
    assert listed([f"n{i}" for i in range(10)]).endswith("`n7` and 2 more")
    assert listed([]) == "none"
