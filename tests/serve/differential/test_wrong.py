"""The corpus of malformed requests, sent to a real Triton too: what it takes is named here.

Every request of the corpus is refused by this server with 4xx (`tests/serve/http`). Triton refuses
nearly all of them; what it lets pass is listed with the reason why it isn't let pass here.
"""

import pytest
from tests.serve.http.malformed import corpus

INFER = "/v2/models/digits/infer"
DEEP = ("10000 ", "200000 ")  # its parser recurses: that many levels may end its process
KILLS = (
    "shape [2147483648",
    "shape [9223372",
    "shape [18446744",
    "shape [1000000",
    "shape [4294967",
)
"""A tensor of 2³¹ rows in JSON ends the process of Triton 2.51."""

LARGE = ("past the body's limit", "a bomb")  # it has other limits

FINITE = "an engine answers NaN and infinity with nonsense, and its caller would never know"
LARGE_NUMBER = "it doesn't fit FP32, and becomes an infinity"
PARAMETERS = "parameters are an object; Triton doesn't look at what else they are"
GZIP = "a body that isn't whole, or more than one; Triton takes what it could unpack"
TAKEN = {
    **dict.fromkeys((f"binary {word}" for word in ("nan", "inf", "-inf")), FINITE),
    **dict.fromkeys((f"the number {word}" for word in ("NaN", "Infinity", "-Infinity")), FINITE),
    **dict.fromkeys(
        (f"one value {text}" for text in ("1e+39", "-1e+39", "inf", str(10**40)[:20])), LARGE_NUMBER
    ),
    **dict.fromkeys((f"its parameters is {v}" for v in (1, "x", True, None, [1])), PARAMETERS),
    **dict.fromkeys(("a gzip twice", "a gzip with a wrong sum"), GZIP),
    "data too deep": "data is nested as its shape is, or flat",
    "one value [1]": "data is nested as its shape is, or flat",
    "the text b'\\xef\\xbb\\xbf{\"inputs\"' of 1410 bytes": "JSON has no byte order mark",
}
"""What Triton answers with 200, and why it is refused here."""


@pytest.fixture(scope="module")
def said(pair, bundles):
    """Return what each server's status is, by the name of the malformed request."""
    rows = bundles["digits"].golden()[0]["input"][:1]
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32"}
    base = {"inputs": [{**tensor, "data": rows.ravel().tolist()}]}
    asked = [each for each in corpus(base) if not each.name.startswith((*DEEP, *LARGE, *KILLS))]
    found = {}
    for each in asked:
        found[each.name] = status(pair.ours, each), status(pair.triton, each)
        assert found[each.name][1], f"Triton left at {each.name!r}"
    return found


def status(side, wrong):
    """Return the status of the answer; 0 for one who hangs up without any."""
    try:
        return side.ask("POST", INFER, wrong.body, wrong.headers)[0]
    except (ConnectionError, TimeoutError):
        return 0


def test_here_each_is_the_callers_mistake(said):
    assert len(said) > 200
    assert {name: ours for name, (ours, _) in said.items() if not 400 <= ours < 500} == {}


def test_triton_takes_no_more_than_is_named(said):
    taken = {name for name, (_, theirs) in said.items() if 200 <= theirs < 400}
    assert taken ^ TAKEN.keys() == set(), "\n".join(sorted(taken ^ TAKEN.keys()))


def test_after_all_that_both_still_answer(said, pair):
    for side in (pair.ours, pair.triton):
        assert side.ask("GET", "/v2/health/ready")[0] == 200
