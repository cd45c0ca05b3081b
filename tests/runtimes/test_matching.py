import numpy as np
import pytest

from fettle.core.arrays import TensorSpec
from fettle.core.errors import InputError
from fettle.runtimes._matching import Matcher
from fettle.runtimes._runtime import match_inputs

SPECS = (
    TensorSpec("a", "float32", (-1, 2)),
    TensorSpec("b", "int64", ()),
    TensorSpec("c", "float32", (3, -1)),
)
A, B, C = np.zeros((5, 2), "f4"), np.array(7), np.zeros((3, 4), "f4")
GIVEN = {
    "right": {"a": A, "b": B, "c": C},
    "another order": {"c": C, "b": B, "a": A},
    "strided": {"a": A[::2], "b": B, "c": C.T.copy().T},
    "no rows": {"a": A[:0], "b": B, "c": C},
    "too many dimensions": {"a": A[None], "b": B, "c": C},
    "too few": {"a": A[0], "b": B, "c": C},
    "another width": {"a": A[:, :1], "b": B, "c": C},
    "another fixed first dimension": {"a": A, "b": B, "c": C[:2]},
    "another type": {"a": A.astype("f8"), "b": B, "c": C},
    "other bytes": {"a": A.astype(">f4"), "b": B, "c": C},
    "a list": {"a": A.tolist(), "b": B, "c": C},
    "None": {"a": None, "b": B, "c": C},
    "one missing": {"a": A, "c": C},
    "one unknown": {"a": A, "b": B, "d": C},
    "one more": {"a": A, "b": B, "c": C, "d": C},
    "an array for a scalar": {"a": A, "b": np.array([7]), "c": C},
}


def outcome(match, inputs):
    try:
        return match(inputs)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("case", GIVEN)
def test_it_accepts_and_says_what_match_inputs_does(case):
    expected = outcome(lambda given: match_inputs(SPECS, given), GIVEN[case])
    found = outcome(Matcher(SPECS), GIVEN[case])
    assert type(found) is type(expected)
    assert found is expected or found == expected
    assert isinstance(found, dict) is (case in list(GIVEN)[:4])


def test_the_only_input_may_come_under_any_name():
    match = Matcher(SPECS[:1])
    assert list(match({"z": A})) == ["a"]
    assert match({"a": A})["a"] is A
    with pytest.raises(InputError):
        match({"z": A[0]})


def test_a_model_without_inputs_takes_none():
    assert Matcher(())({}) == {}
    with pytest.raises(InputError):
        Matcher(())({"a": A})
