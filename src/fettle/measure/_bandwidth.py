"""How fast memory is read here, by how much of it is read again and again.

A working set that fits a cache is read at the cache's speed, so the rate falls in steps as the set
grows: first caches, the last figure main memory (or a last-level cache larger than that). Each
thread multiplies a matrix of its own share by a vector, over and over inside one call of BLAS.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import psutil

SIZES = tuple(1 << n for n in (15, 17, 19, 21, 23, 25, 28))  # bytes: 32 KiB … 256 MiB
_ROW = 1024  # float32 numbers, 4 KiB
_AT_ONCE = 1 << 25  # bytes to read in one call, short enough to go undisturbed
_TRIES = 15


def bandwidths(threads: int) -> tuple[tuple[int, float], ...]:
    """Return pairs of working set (bytes, all threads together) and bytes read a second.

    Larger sets are never faster: what noise says otherwise is evened out upwards, so that a bound
    that is made of it stays a bound. Sets that memory has no room for are left out.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    room = psutil.virtual_memory().available // 4
    sizes = [size for size in SIZES if size <= room or size == SIZES[0]]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        rates = [_rate(pool, threads, size) for size in sizes]
    falling = np.maximum.accumulate(rates[::-1])[::-1]
    return tuple(zip(sizes, map(float, falling), strict=True))


def _rate(pool: ThreadPoolExecutor, threads: int, size: int) -> float:
    rows = max(1, size // threads // (4 * _ROW))
    repeats = max(1, _AT_ONCE // threads // (rows * 4 * _ROW))
    shares = [np.ones((rows, _ROW), np.float32) for _ in range(threads)]
    best = np.inf
    for _ in range(_TRIES):
        start = perf_counter()
        list(pool.map(lambda share: _read(share, repeats), shares))
        best = min(best, perf_counter() - start)
    return threads * repeats * rows * 4 * _ROW / best


def _read(share: np.ndarray, repeats: int) -> np.ndarray:
    """Read `share` (rows, _ROW) `repeats` times; the loop runs outside of Python's lock."""
    vector = np.ones(_ROW, np.float32)
    again = np.broadcast_to(share, (repeats, *share.shape))
    product: np.ndarray = np.matmul(again, vector)
    return product
