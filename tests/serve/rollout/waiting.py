"""Waiting for what other threads do."""

import time


def until(what, seconds=10.0):
    """Wait for something that comes from another thread."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)
