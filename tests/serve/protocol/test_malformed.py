"""Every request of the corpus is refused in words, and none costs more than its own size."""

import base64
import gzip
import json
import re
import runpy
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from fettle.core.arrays import TensorSpec
from fettle.serve.errors import BadRequest, TooLarge
from fettle.serve.protocol.reading import read_infer
from fettle.serve.protocol.signature import Signature

KEPT = Path(__file__).with_name("malformed.jsonl")
GENERATOR = runpy.run_path(str(Path(__file__).with_name("generate_malformed.py")))
CASES = [json.loads(line) for line in KEPT.read_text().splitlines()]
NAMES = [case["name"] for case in CASES]
MODELS = {
    name: Signature(
        *(tuple(TensorSpec(n, d, tuple(s)) for n, d, s in each) for each in both), max_batch=8
    )
    for name, both in GENERATOR["MODELS"].items()
}
INTERNAL = re.compile(r"Traceback|File \"|0x[0-9a-f]{8}|<class|Error\b")
WORDS = re.compile("expect|says|isn't|no notation|can't be sent")


def body_of(case):
    return gzip.decompress(base64.b64decode(case["body"]))


def refusal(case, few):
    with pytest.raises((BadRequest, TooLarge)) as caught:
        read_infer(body_of(case), case["length"], MODELS[case["model"]], few)
    return str(caught.value)


def test_the_corpus_is_large_and_its_names_tell_cases_apart():
    assert len(CASES) >= 200
    assert [name for name, times in Counter(NAMES).items() if times > 1] == []
    told_apart = {(case["model"], case["length"], body_of(case)) for case in CASES}
    assert len(told_apart) > 0.97 * len(CASES)


def test_the_kept_corpus_is_what_the_generator_writes():
    """The bytes of gzip may differ from one zlib to the next; what they hold may not."""
    made = [json.loads(GENERATOR["line_of"](case)) for case in GENERATOR["cases"]()]
    for mine, kept in zip(made, CASES, strict=True):
        assert mine | {"body": body_of(mine)} == kept | {"body": body_of(kept)}


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_it_is_refused_in_words(case, few):
    said = refusal(case, few)
    assert WORDS.search(said), (case["name"], said)
    assert not INTERNAL.search(said), (case["name"], said)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 600


def test_refusals_take_little_more_memory_than_their_bodies(few):
    for case in CASES:
        size = len(body_of(case))
        tracemalloc.start()
        refusal(case, few)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # a parsed value of JSON takes about 60 bytes for two on the wire, and the body is unpacked
        assert peak < 1_000_000 + 100 * size, case["name"]
