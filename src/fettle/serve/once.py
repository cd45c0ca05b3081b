"""A server that is asked once: what a demonstration ends with, over real HTTP on a free port."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.arrays import rows
from fettle.core.bundle import Bundle
from fettle.core.errors import CheckFailed
from fettle.serve.http.server import Server, new_loop
from fettle.serve.protocol.datatypes import name_of
from fettle.serve.running import serve
from fettle.serve.settings import Settings

if TYPE_CHECKING:
    from fettle.serve.repository import Repository

NAME = "model"
_LONGEST_S = 30


@dataclass(frozen=True)
class Asked:
    """One request and its answer.

    Attributes:
        url: where the server was.
        body: the request's JSON.
        answer: the response's.
        ms: from the first byte of the one to the last of the other, in milliseconds.
    """

    url: str
    body: dict[str, Any]
    answer: dict[str, Any]
    ms: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without the numbers that were sent."""
        return {"url": self.url, "answer": self.answer, "ms": round(self.ms, 3)}


def ask_once(bundle: Path) -> Asked:
    """Serve the bundle in folder `bundle`, ask for the first golden example, and stop.

    Raises:
        FettleError: the bundle can't be served.
        CheckFailed: the server gives another answer than the bundle holds.
    """
    opened = Bundle.open(bundle)
    inputs, outputs = (rows(arrays, 0, 1) for arrays in opened.golden())
    found: list[Asked] = []

    async def whole() -> None:
        loop = asyncio.get_running_loop()

        def announce(server: Server, repository: Repository) -> None:
            del repository
            asking = loop.run_in_executor(None, _ask, server.url, inputs)
            asking.add_done_callback(lambda _: server.handle_exit(signal.SIGTERM))
            asked.append(asking)

        asked: list[asyncio.Future[Asked]] = []
        settings = Settings(port=0, access_log=False)
        await serve([f"{NAME}={bundle}"], settings, announce)
        found.extend([await each for each in asked])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(whole())
    _refuse_others(found[0].answer, outputs)
    return found[0]


def _ask(url: str, inputs: dict[str, np.ndarray]) -> Asked:
    tensors = [
        {
            "name": k,
            "datatype": name_of(a.dtype),
            "shape": list(a.shape),
            "data": a.ravel().tolist(),
        }
        for k, a in inputs.items()
    ]
    body: dict[str, Any] = {"inputs": tensors}
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{url}/v2/models/{NAME}/infer", json.dumps(body).encode()
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=_LONGEST_S) as response:  # noqa: S310
        text = response.read()
    return Asked(url, body, json.loads(text), (time.perf_counter() - started) * 1e3)


def _refuse_others(answer: dict[str, Any], outputs: dict[str, np.ndarray]) -> None:
    given = {each["name"]: each for each in answer["outputs"]}
    for name, array in outputs.items():
        found = np.asarray(given[name]["data"]).reshape(given[name]["shape"])
        if found.shape != array.shape or found.argmax() != array.argmax():
            raise CheckFailed(
                f"the server answers {found.tolist()} for `{name}`, where the bundle holds"
                f" {array.tolist()}: `fettle check` tells more"
            )
