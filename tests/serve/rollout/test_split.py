"""A/B: who answers whom."""

import numpy as np
import pytest

from fettle.serve.errors import NotFound, NotReady
from fettle.serve.protocol.request import InferRequest
from fettle.serve.rollout.split import Split

KEYS = [f"user-{number}" for number in range(3000)]


def request(name=""):
    return InferRequest(name, {"x": np.zeros((1, 3), np.float32)})


@pytest.fixture
def arms(fake, shelf):
    return shelf(fake("one")), shelf(fake("two"))


@pytest.fixture
def split(arms):
    def make(share=0.3, salt="s"):
        return Split("m", arms[0].find, arms[1].find, share, salt)

    return make


def parts(split, keys=KEYS):
    return [split.choose("m", None, key, request()).part for key in keys]


def test_each_caller_keeps_to_an_arm_on_every_server(split):
    assert parts(split()) == parts(split())
    assert parts(split()).count("b") == pytest.approx(900, abs=80)


def test_the_arm_s_own_model_answers(split, arms):
    for key in KEYS[:50]:
        chosen = split().choose("m", None, key, request())
        assert chosen.served is arms[chosen.part == "b"].served


def test_a_larger_share_takes_none_back(split):
    few, many = parts(split(0.1)), parts(split(0.4))
    assert all(later == "b" for now, later in zip(few, many, strict=True) if now == "b")


@pytest.mark.parametrize(("share", "part"), [(0.0, "a"), (1.0, "b")])
def test_none_and_all(split, share, part):
    assert set(parts(split(share))) == {part}


def test_salts_assign_anew(split):
    one, other = (np.array(parts(split(0.5, salt))) == "b" for salt in ("s", "t"))
    assert 0.4 < (one == other).mean() < 0.6


def test_requests_without_a_key_go_by_their_id_or_their_number(split):
    s = split(0.5)
    by_id = [s.choose("m", None, "", request(key)).part for key in KEYS]
    assert by_id == parts(s)
    by_number = [s.choose("m", None, "", request()).part for _ in KEYS]
    assert by_number.count("b") == pytest.approx(1500, abs=120)


def test_a_version_that_is_asked_for_answers(split, arms):
    chosen = split(1.0).choose("m", "1", "anna", request())
    assert (chosen.part, chosen.served) == ("only", arms[0].served)


def test_other_models_are_left_alone(split):
    with pytest.raises(NotFound):
        split(1.0).choose("n", None, "anna", request())


def test_while_b_is_not_ready_a_answers_for_it(split, arms):
    arms[1].put(None)
    chosen = split(1.0).choose("m", None, "anna", request())
    assert (chosen.part, chosen.served) == ("primary", arms[0].served)


def test_without_a_nobody_answers(split, arms):
    arms[0].put(None)
    with pytest.raises(NotReady):
        split(1.0).choose("m", None, "anna", request())


def test_a_b_that_takes_less_does_not_answer(split, arms, fake):
    arms[1].put(fake("two", max_batch=4))
    assert parts(split(1.0), KEYS[:3]) == ["primary"] * 3
    arms[0].put(fake("one", max_batch=4))
    assert parts(split(1.0), KEYS[:3]) == ["b"] * 3
