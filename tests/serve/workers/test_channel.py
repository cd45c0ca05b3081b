"""Messages between two processes."""

import socket
import threading

import pytest

from fettle.serve.workers.channel import Channel


@pytest.fixture
def ends():
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_come_one_by_one_and_whole(ends):
    ours, theirs = ends
    large = {"text": "ä" * 500_000}
    sending = threading.Thread(target=lambda: [ours.send({"a": [1, 2.5, None]}), ours.send(large)])
    sending.start()
    assert theirs.receive(10) == {"a": [1, 2.5, None]}
    assert theirs.receive(10) == large
    sending.join()


def test_one_that_says_nothing_is_not_waited_for(ends):
    with pytest.raises(TimeoutError):
        ends[0].receive(0.01)


def test_the_end_of_the_other_side_is_told(ends):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(EOFError):
        ours.receive(10)
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system says
        ours.send({})
