"""Load from `wrk`: one thread, a fixed body, as many connections as asked, each in turn.

wrk is written in C and waits in epoll: of two shared processors it leaves the server almost all.
It is the same for every server. Answers other than 2xx are counted, and what is in an answer is
held against the model before and after the load.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from _serving_bodies import Ask

SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format(
    '{{"requests": %d, "us": %d, "p50": %f, "p99": %f, "refused": %d, "broken": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), e.status,
    e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What came of one load.

    Attributes:
        rate: good answers a second.
        p50: milliseconds, median.
        p99: milliseconds.
        refused: answers other than 2xx.
        broken: connections refused, cut or timed out.
    """

    rate: float
    p50: float
    p99: float
    refused: int
    broken: int


def load(url: str, ask: Ask, connections: int, seconds: float) -> Load:
    """Ask a server for `seconds` over `connections` connections.

    Raises:
        RuntimeError: wrk isn't installed, or fails.
    """
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("the load comes from `wrk`, which isn't here: apt install wrk")
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder) / "body", Path(folder) / "load.lua"
        body.write_bytes(ask.body)
        headers = "\n".join(f'wrk.headers["{k}"] = "{v}"' for k, v in ask.headers.items())
        script.write_text(SCRIPT.format(body=body, headers=headers))
        command = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s",
                   "--timeout", "60s", "-s", str(script), url + ask.path]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk fails: {done.stdout}{done.stderr}")
    return _read(done.stderr)


def _read(said: str) -> Load:
    found = json.loads(said.splitlines()[-1])
    good = found["requests"] - found["refused"]
    return Load(
        rate=1e6 * good / found["us"],
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        refused=found["refused"],
        broken=found["broken"],
    )
