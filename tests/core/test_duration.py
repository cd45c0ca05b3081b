import pytest

from fettle.core.duration import seconds_of
from fettle.core.errors import KnobError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("2h", 7200), ("1.5m", 90), ("7", 7), (7, 7), (0.5, 0.5)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5m", "soon", "nan", "inf", "1h30m", "20 minutes", -1])
def test_what_is_none_is_named(text):
    with pytest.raises(KnobError, match="`time_limit` expects a duration such as 90s, 20m or 2h"):
        seconds_of(text)
