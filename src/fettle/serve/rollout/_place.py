"""Where a key falls between 0 and 1: always at the same place, and evenly over all keys."""

from __future__ import annotations

from hashlib import blake2b

_WHOLE = 1 << 64


def place_of(key: str, salt: str) -> float:
    """Return a number from 0 to below 1 that depends on nothing but `key` and `salt`."""
    text = f"{len(salt)}:{salt}{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest()) / _WHOLE
