"""A gRPC server in a thread of its own, in front of a model that gives back what it got."""

import asyncio
import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tritonclient.grpc as triton

from fettle.core.arrays import TensorSpec
from fettle.serve.errors import BadRequest, Busy, NotFound
from fettle.serve.grpc import start_grpc
from fettle.serve.protocol.datatypes import FLOATS, NUMPY
from fettle.serve.protocol.request import InferResponse
from fettle.serve.protocol.signature import Signature
from fettle.serve.room import Room
from fettle.serve.settings import Settings
from fettle.serve.statistics import Statistics

LABELS = ("cat", "dog")


def echo(*datatypes):
    """Return the signature of a model whose outputs are its inputs."""
    specs = tuple(TensorSpec(name.lower(), str(NUMPY[name]), (-1, 4)) for name in datatypes)
    return Signature(specs, specs, LABELS, max_batch=8)


class Parrot:
    """What gRPC asks of a `Service`, with two models that give back their inputs."""

    def __init__(self, settings):
        self.settings, self.repository = settings, self
        self.models = {"all": echo(*NUMPY), "one": echo("FP32")}
        self.counted = {name: Statistics() for name in self.models}
        self.seen, self.loaded, self.unread = [], [], []
        self.fails, self.up = None, True
        self.room, self.lines = Room(settings), []

    def find(self, name, version=None):
        if name not in self.models or version not in (None, "1"):
            raise NotFound(f"no model `{name}` is served here")
        model = SimpleNamespace(signature=self.models[name], version="1")
        return SimpleNamespace(model=model, statistics=self.counted[name])

    async def infer(self, name, version, request, meta):
        self.seen.append((name, version, request, meta))
        if self.fails is not None:
            raise self.fails
        outputs = request.inputs
        labels, wanted = self.models[name].labels, request.wanted(outputs)
        return InferResponse(name, "1", request.id or "made", outputs, {}, labels, wanted)

    def refused(self, name, version, meta, error, request=""):
        self.unread.append((name, type(error).__name__, meta.protocol, request))
        if name in self.counted:
            self.counted[name].failed(0.0)
        return request or "made"

    def live(self):
        return True

    def ready(self):
        return self.up

    def model_ready(self, name, version):
        return self.find(name, version) is not None

    def metadata(self):
        return {"name": "fettle", "version": "9", "extensions": ["statistics"]}

    def model_metadata(self, name, version):
        described = self.find(name, version).model.signature.describe()
        return {"name": name, "versions": ["1"], "platform": "onnxruntime_onnx", **described}

    def model_config(self, name, version):
        self.find(name, version)
        tensor = {"name": "fp32", "data_type": "TYPE_FP32", "dims": [4]}
        batching = {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 50}
        return {
            "name": name,
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 8,
            "input": [tensor],
            "output": [tensor],
            "dynamic_batching": batching,
        }

    def statistics(self, name, version):
        names = [name] if name else list(self.models)
        return {"model_stats": [self.counted[each].to_json(each, "1") for each in names]}

    def index(self, ready):
        state = {"version": "1", "state": "READY", "reason": ""}
        return [{"name": name, **state} for name in self.models]

    async def load(self, name, parameters):
        if parameters:
            raise BadRequest("no parameters were expected")
        self.find(name)
        self.loaded.append(name)

    async def unload(self, name):
        self.find(name)
        self.loaded.remove(name)


@contextlib.contextmanager
def running(service):
    """Run a gRPC server for a service; yields its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    try:
        server = wait(start_grpc(service, service.settings, service.room, service.lines.append))
        yield server.port
        wait(server.stop(1.0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="session")
def _served():
    service = Parrot(Settings(grpc_port=0, body_bytes=1 << 20, tensor_elements=10_000))
    with running(service) as port:
        yield service, port


@pytest.fixture
def service(_served):
    """The service behind the server, as at its start."""
    found = _served[0]
    found.seen.clear()
    found.loaded.clear()
    found.lines.clear()
    found.fails, found.up = None, True
    return found


@pytest.fixture
def port(_served, service):
    return _served[1]


@pytest.fixture
def client(port):
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as found:
        yield found


@pytest.fixture(scope="session")
def values():
    """Return an array of a type of the protocol."""

    def make(datatype, rows=2):
        if datatype == "BYTES":
            return np.array([["", "naïve", "日本", "x" * 300]] * rows, object)
        if datatype == "BOOL":
            return np.resize([True, False, False], (rows, 4))
        if datatype in FLOATS:
            numbers = np.random.default_rng(7).standard_normal((rows, 4)).astype(np.float32)
            return numbers.astype(NUMPY[datatype])
        info = np.iinfo(NUMPY[datatype])
        return np.resize(np.array([info.min, info.max, 1], NUMPY[datatype]), (rows, 4))

    return make


@pytest.fixture(scope="session")
def refusal():
    """A refusal that comes with metadata."""
    return Busy("the queue is full", 7)


@pytest.fixture
def start():
    """Start servers with settings of the test's own."""
    with contextlib.ExitStack() as stack:

        def begin(**settings):
            service = Parrot(Settings(grpc_port=0, **settings))
            return stack.enter_context(running(service)), service

        yield begin
