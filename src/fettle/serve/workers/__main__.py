"""What a worker process does: open the bundle, say so, and compute until the server is gone.

Started as `python -m fettle.serve.workers SOCKET MEMORY`, with the numbers of two descriptors that
it was handed.
"""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import Any

from fettle.core.bundle import Bundle
from fettle.core.errors import InputError
from fettle.runtimes import Session
from fettle.serve._engine import build_session, sha_of
from fettle.serve.workers.channel import Channel
from fettle.serve.workers.memory import SharedMemory, end_of

_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: list[str]) -> int:
    """Serve the process that started this one; return its exit status."""
    for each in _NOT_OURS:  # the server drains first, and ends this by closing the channel
        signal.signal(each, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(argv[0])))
    try:
        return _serve(channel, SharedMemory(int(argv[1])))
    except (EOFError, ConnectionError):
        return 0  # the server is gone
    finally:
        channel.close()


def _serve(channel: Channel, memory: SharedMemory) -> int:
    try:
        session = _open(**channel.receive())
    except Exception as error:  # whatever a broken file does to an engine
        channel.send({"refused": str(error) or type(error).__name__})
        return 1
    channel.send(
        {
            "inputs": [spec.to_json() for spec in session.inputs],
            "outputs": [spec.to_json() for spec in session.outputs],
        }
    )
    while True:
        channel.send(_answer(session, memory, channel.receive()))


def _open(bundle: str, sha: str, threads: int) -> Session:
    opened = Bundle.open(Path(bundle))
    if sha_of(opened.manifest) != sha:
        raise InputError(f"{bundle} holds another bundle than the one that is served")
    return build_session(opened, threads)


def _answer(session: Session, memory: SharedMemory, asked: dict[str, Any]) -> dict[str, Any]:
    """Return where the outputs lie, or why there are none."""
    try:
        places = asked["inputs"]
        outputs = session.run(memory.read(places))
        return {"outputs": memory.write(outputs, after=end_of(places))}
    except Exception as error:  # an engine's own kinds have no base in common
        kind = "input" if type(error) is InputError else "failed"
        return {kind: str(error) or type(error).__name__}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
