"""What a request looks like to each server, and where its answer holds the outputs."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Ask:
    """One request, whole: where it goes, and what it carries."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def protocol(name: str, x: np.ndarray, binary: bool) -> Ask:
    """Return a request of the Open Inference Protocol, version 2."""
    path = "/v2/models/m/infer"
    tensor = {"name": name, "shape": list(x.shape), "datatype": "FP32"}
    if not binary:
        tensor["data"] = _numbers(x.ravel())
        return Ask(path, json.dumps({"inputs": [tensor]}).encode())
    tensor["parameters"] = {"binary_data_size": x.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    kind = {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}
    return Ask(path, head + x.tobytes(), kind)


def litserve(name: str, x: np.ndarray, binary: bool) -> Ask:
    """Return a request of LitServe's."""
    del name, binary
    return Ask("/predict", json.dumps({"input": _numbers(x)}).encode())


def bentoml(name: str, x: np.ndarray, binary: bool) -> Ask:
    """Return a request of BentoML's."""
    del name, binary
    return Ask("/predict", json.dumps({"x": _numbers(x)}).encode())


def _numbers(x: np.ndarray) -> list:
    """Return the numbers with as many digits as float32 has, as JSON writers that know it do."""
    rounded = [float(str(value)) for value in x.ravel()]
    return np.asarray(rounded).reshape(x.shape).tolist()


def answer(url: str, ask: Ask, seconds: float = 30.0) -> np.ndarray:
    """Send one request and return the first output, flat.

    Raises:
        AssertionError: the answer isn't 200.
        OSError: there is no answer.
    """
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=seconds)
    try:
        connection.request("POST", ask.path, ask.body, ask.headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, f"{response.status}: {body[:300]!r}"
        return outputs(body, response.getheader(LENGTH))
    finally:
        connection.close()


def outputs(body: bytes, length: str | None) -> np.ndarray:
    """Return the first output of an answer, flat."""
    if length is not None and int(length) < len(body):
        return np.frombuffer(body[int(length) :], np.float32)
    found = json.loads(body)
    if isinstance(found, dict):
        found = found["output"] if "output" in found else found["outputs"][0]["data"]
    return np.asarray(found, np.float32).ravel()
