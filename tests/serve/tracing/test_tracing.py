"""Traces that are asked for, and those that aren't."""

import subprocess
import sys

import numpy as np
import pytest
import tritonclient.http as triton
from tests.serve.http.whole import serving
from tests.serve.tracing.conftest import CALLER

from fettle.core.errors import InputError, MissingError
from fettle.serve.http.app import App
from fettle.serve.http.handlers import Handlers
from fettle.serve.http.security import Gate
from fettle.serve.repository import Repository
from fettle.serve.service import Service
from fettle.serve.settings import Settings
from fettle.serve.tracing import app_of, endpoint_of, tracing_of


def test_who_asks_for_none_gets_the_plain_application():
    settings = Settings()
    assert tracing_of(settings) is None
    handlers = Handlers(Service(Repository(settings), settings))
    assert type(app_of(handlers, Gate(settings))) is App


def test_without_traces_nothing_of_opentelemetry_is_imported():
    code = (
        "import sys, fettle.serve.running; from fettle.serve.settings import Settings\n"
        "fettle.serve.tracing.tracing_of(Settings()); print('opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_its_packages_the_install_line_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "fettle.serve.tracing.export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingError, match=r"fettle\[tracing\]"):
        tracing_of(Settings(trace_endpoint="http://localhost:4318"))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://collector.example/", "https://collector.example/v1/traces"),
        ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ("http://[::1]:4318/own/path", "http://[::1]:4318/own/path"),
    ],
)
def test_a_collector_without_a_path_has_otlps(url, found):
    assert endpoint_of(url) == found


@pytest.mark.parametrize(
    "url", ["localhost:4318", "grpc://x:4317", "http://", "http://x:99999", "http://[", "file:///x"]
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InputError, match="--trace-endpoint"):
        endpoint_of(url)


def test_a_whole_server_tells_a_collector_of_its_requests(collector, proven):
    inputs = proven.golden()[0]["input"][:2]
    with serving([f"m={proven.path}"], trace_endpoint=collector.url) as run:
        client = triton.InferenceServerClient(f"127.0.0.1:{run.port}")
        tensor = triton.InferInput("input", list(inputs.shape), "FP32")
        tensor.set_data_from_numpy(np.ascontiguousarray(inputs))
        client.infer("m", [tensor], headers={"traceparent": CALLER})
        client.close()
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"POST /v2/models/{name}/infer", "queue", "compute"}
    server = spans["POST /v2/models/{name}/infer"]
    assert server.trace_id.hex() == CALLER[3:35]
    assert spans["compute"].parent_span_id == server.span_id
    assert server.start_time_unix_nano <= spans["queue"].start_time_unix_nano
