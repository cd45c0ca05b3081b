"""The memory of all bodies together."""

import pytest

from fettle.serve.errors import Busy
from fettle.serve.room import Room
from fettle.serve.settings import Limits


def test_what_is_held_is_given_back():
    room = Room(Limits(body_bytes=100, bodies_bytes=1000))
    with room.holding(600) as held:
        held.add(300)
        assert (room.held, held.size) == (900, 900)
        with pytest.raises(Busy, match="set apart"), room.holding(101):
            raise AssertionError
        with pytest.raises(Busy):
            held.add(101)
    assert room.held == 0


def test_two_of_the_largest_always_fit():
    room = Room(Limits(body_bytes=100, bodies_bytes=1))
    with room.holding(100), room.holding(100), pytest.raises(Busy):
        room.take(1)
