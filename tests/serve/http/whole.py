"""Whole servers of the sample bundle, in threads, for tests and for the corpus."""

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass
from typing import Any

from tests.serve.http.conftest import Running, parsed

from fettle.serve.http.server import new_loop
from fettle.serve.running import serve
from fettle.serve.settings import Settings

INFER = "/v2/models/m/infer"


@dataclass
class Served:
    """A running server, its model's inputs and golden outputs."""

    run: Running
    client: Any
    inputs: dict
    outputs: dict

    @property
    def name(self):
        return next(iter(self.inputs))

    def get(self, path):
        """Ask with GET, and return the response."""
        return self.post(path, b"", method="GET")

    def post(self, path, body, method="POST", **headers):
        """Send one request as bytes, and return its response."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Host": "localhost", "Content-Length": str(len(raw)), "Connection": "close"}
        named |= {key.replace("_", "-"): value for key, value in headers.items()}
        lines = "".join(f"{key}: {value}\r\n" for key, value in named.items())
        head = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()
        (response,) = parsed(self.run.talk(head + raw))
        return response

    def document(self, rows=1, **changes):
        array = self.inputs[self.name][:rows]
        tensor = {"name": self.name, "shape": list(array.shape), "datatype": "FP32",
                  "data": array.ravel().tolist()}  # fmt: skip
        return {"inputs": [{**tensor, **changes}]}


@contextlib.contextmanager
def serving(bundles, wanted=None, **settings):
    """Run `fettle serve` in a thread, with what is wanted to ride along."""
    box, up = {}, threading.Event()

    def announce(server, repository):
        box.update(server=server, repository=repository, loop=asyncio.get_running_loop())
        up.set()

    def thread():
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                given = Settings(port=0, access_log=False, threads=1, **settings)
                runner.run(serve(bundles, given, announce, wanted))
        except BaseException as error:
            box["error"] = error
            raise
        finally:
            up.set()

    worker = threading.Thread(target=thread, daemon=True)
    worker.start()
    assert up.wait(120)
    assert "error" not in box, box
    server = box["server"]
    run = Running(server, int(server.url.rsplit(":", 1)[1]), box["loop"])
    try:
        yield run
    finally:
        run.stop()
        worker.join(30)
        assert not worker.is_alive()
