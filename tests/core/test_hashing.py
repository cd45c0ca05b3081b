import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fettle.core.hashing import array_fingerprint, file_sha256, fingerprint

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_the_order_of_keys_does_not_matter(value):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


def test_values_and_types_do():
    values = [None, 0, 1, "1", [1], [[1]], {"a": 1}, {"a": "1"}, True, 1.5, [1, 2], [2, 1]]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_a_fingerprint_is_the_start_of_sha256():
    assert fingerprint({"b": 1, "a": [2]}) == hashlib.sha256(b'{"a":[2],"b":1}').hexdigest()[:16]


def test_arrays_differ_by_content_type_shape_and_order():
    x = np.arange(6, dtype=np.int32)
    arrays = [(x,), (x.astype("i8"),), (x.reshape(2, 3),), (x[::-1],), (x, x), (x[:3], x[3:]), ()]
    assert len({array_fingerprint(*group) for group in arrays}) == len(arrays)


def test_memory_layout_does_not_matter():
    x = np.arange(6.0).reshape(2, 3)
    assert array_fingerprint(x) == array_fingerprint(np.asfortranarray(x))


def test_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()
