"""Where keys fall."""

import numpy as np
from scipy import stats

from fettle.serve.rollout._place import place_of

KEYS = [f"user-{number}" for number in range(4000)]


def test_places_stay_what_they_were():
    # printf 6:fettleanna | b2sum -l 64
    assert place_of("anna", "fettle") == 0xF294841932AB4246 / 2**64


def test_places_are_even_and_salts_independent():
    one, other = ([place_of(key, salt) for key in KEYS] for salt in ("a", "b"))
    assert stats.kstest(one, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_a_salt_s_end_is_told_from_a_key_s_beginning():
    assert place_of("bc", "a") != place_of("c", "ab")


def test_any_text_has_a_place():
    assert 0 <= place_of("\ud800\x00é", "") < 1
