# ruff: noqa: N802, N815 - the names are NVIDIA's
"""TensorRT and CUDA where there is no GPU: the same calls, answered by onnxruntime and host memory.

Only for what a GPU is needed for. It shows that memory, streams, graphs, profiles, files and checks
are handled as the documentation of TensorRT and of the CUDA driver has it; it shows nothing about
what TensorRT answers, or how fast. Parsing and building are tried on NVIDIA's own package, where it
is installed.
"""

import ctypes
import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort

from fettle.runtimes import _tensorrt_cuda as cuda
from fettle.runtimes import tensorrt as runtime_module


class Driver:
    """The functions of libcuda that fettle calls, on host memory."""

    def __init__(self, devices=1, fail=()):
        self.devices, self.fail, self.calls = devices, set(fail), []
        self.memory, self.live, self.recording, self.graphs = {}, 0, None, {}
        self.next, self.marks = 100, {}

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append(name)
            if name in self.fail:
                return 700
            return getattr(self, f"do_{name}", self.nothing)(*arguments) or 0

        return call

    def nothing(self, *arguments):
        del arguments

    def handle(self, out):
        self.next += 1
        out._obj.value = self.next
        return self.next

    def do_cuDeviceGetCount(self, out):
        out._obj.value = self.devices

    def do_cuDeviceGetName(self, name, size, device):
        name.value = b"Fake GPU"

    def do_cuDeviceGetAttribute(self, out, which, device):
        out._obj.value = {75: 9, 76: 0}[which]

    def do_cuDevicePrimaryCtxRetain(self, out, device):
        self.handle(out)
        self.live += 1

    def do_cuDevicePrimaryCtxRelease_v2(self, device):
        self.live -= 1

    def do_cuMemAlloc_v2(self, out, size):
        memory = (ctypes.c_uint8 * size.value)()
        out._obj.value = ctypes.addressof(memory)
        self.memory[out._obj.value] = memory

    do_cuMemAllocHost_v2 = do_cuMemAlloc_v2

    def do_cuMemFree_v2(self, pointer):
        del self.memory[pointer.value]

    do_cuMemFreeHost = do_cuMemFree_v2

    def do_cuMemcpyHtoDAsync_v2(self, to, source, size, stream):
        self.give(lambda: ctypes.memmove(to.value, source.value, size.value))

    do_cuMemcpyDtoHAsync_v2 = do_cuMemcpyHtoDAsync_v2

    def do_cuStreamCreate(self, out, flags):
        self.handle(out)
        self.live += 1

    def do_cuStreamDestroy_v2(self, stream):
        self.live -= 1

    def do_cuStreamBeginCapture_v2(self, stream, mode):
        self.recording = []

    def do_cuStreamEndCapture(self, stream, out):
        self.graphs[self.handle(out)] = self.recording
        self.recording = None

    def do_cuGraphInstantiateWithFlags(self, out, graph, flags):
        self.graphs[self.handle(out)] = self.graphs[graph.value]

    def do_cuGraphLaunch(self, graph, stream):
        for work in self.graphs[graph.value]:
            work()

    def do_cuGraphExecDestroy(self, graph):
        del self.graphs[graph.value]

    do_cuGraphDestroy = do_cuGraphExecDestroy

    def do_cuEventCreate(self, out, flags):
        self.handle(out)
        self.live += 1

    def do_cuEventDestroy_v2(self, event):
        self.live -= 1

    def do_cuEventRecord(self, event, stream):
        self.next += 1
        self.marks[event.value] = self.next

    def do_cuEventElapsedTime(self, out, start, end):
        out._obj.value = float(self.marks[end.value] - self.marks[start.value])

    def give(self, work):
        """Do it, or keep it for the graph that is being captured."""
        (self.recording.append if self.recording is not None else lambda done: done())(work)


class TensorRt:
    """The module `tensorrt`: what is built is the ONNX file itself, with its profile."""

    MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    ProfilingVerbosity = SimpleNamespace(DETAILED=2)
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    BuilderFlag = SimpleNamespace(TF32=5)

    class ILogger:
        ERROR, INTERNAL_ERROR = 1, 0

        def __init__(self):
            pass

    class IProfiler:
        def __init__(self):
            pass

    def __init__(self, driver, version="10.13.0", says=None):
        self.driver, self.__version__, self.says, self.built = driver, version, says, []
        self.seen = SimpleNamespace(config=None, flags=None, profiles={})
        if version.startswith("10"):
            self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    def Builder(self, logger):
        return Builder(self)

    def OnnxParser(self, network, logger):
        return Parser(network)

    def Runtime(self, logger):
        return SimpleNamespace(deserialize_cuda_engine=lambda data: Engine.load(self, data))

    @staticmethod
    def nptype(kind):
        return np.dtype(kind)


class Builder:
    def __init__(self, trt):
        self.trt = trt

    def create_network(self, flags):
        self.trt.seen.flags = flags
        return SimpleNamespace(proto=None, num_inputs=0, get_input=None)

    def create_builder_config(self):
        self.trt.seen.config = Config()
        return self.trt.seen.config

    def create_optimization_profile(self):
        shapes = self.trt.seen.profiles
        return SimpleNamespace(set_shape=lambda name, *sizes: shapes.__setitem__(name, sizes))

    def build_serialized_network(self, network, config):
        self.trt.built.append(config.timings)
        return b"ENGINE" + network.proto


class Config:
    def __init__(self):
        self.limits, self.cleared, self.profiles, self.timings = {}, [], [], b""
        self.profiling_verbosity = None

    def set_memory_pool_limit(self, pool, size):
        self.limits[pool] = size

    def clear_flag(self, flag):
        self.cleared.append(flag)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)

    def create_timing_cache(self, data):
        return data

    def set_timing_cache(self, cache, ignore_mismatch):
        self.timings = cache
        return True

    def get_timing_cache(self):
        return SimpleNamespace(serialize=lambda: self.timings + b"t")


class Parser:
    def __init__(self, network):
        self.network, self.num_errors = network, 0

    def parse(self, data):
        model = onnx.ModelProto.FromString(data)
        inputs = [
            SimpleNamespace(
                name=v.name,
                shape=[d.dim_value if d.HasField("dim_value") else -1 for d in dims_of(v)],
            )
            for v in model.graph.input
        ]
        self.network.proto, self.network.num_inputs = data, len(inputs)
        self.network.get_input = inputs.__getitem__
        return True


def dims_of(value):
    return value.type.tensor_type.shape.dim


class Engine:
    @classmethod
    def load(cls, trt, data):
        return cls(trt, data) if data.startswith(b"ENGINE") else None

    def __init__(self, trt, data):
        self.trt, self.proto = trt, onnx.ModelProto.FromString(data[6:])
        self.session = ort.InferenceSession(data[6:], providers=["CPUExecutionProvider"])
        values = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.io = {value.name: value for value in values}
        self.inputs = [value.name for value in self.session.get_inputs()]

    @property
    def num_io_tensors(self):
        return len(self.io)

    def get_tensor_name(self, index):
        return list(self.io)[index]

    def get_tensor_mode(self, name):
        return "in" if name in self.inputs else "out"

    def get_tensor_dtype(self, name):
        found = self.io[name].type.removeprefix("tensor(").removesuffix(")")
        return {"float": "float32"}.get(found, found)

    def get_tensor_shape(self, name):
        return tuple(d if isinstance(d, int) else -1 for d in self.io[name].shape)

    def create_execution_context(self):
        return Context(self)

    def create_engine_inspector(self):
        return SimpleNamespace(get_engine_information=lambda form: json.dumps(self.described()))

    def described(self):
        products = [n for n in self.proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
        made = {output: n for n in self.proto.graph.node for output in n.output}
        return {"Layers": [self.layer(node, made) for node in products]}

    def layer(self, node, made):
        source = made.get(node.input[0])
        integer = source is not None and source.op_type == "DequantizeLinear"
        kind = self.trt.says or ("Int8" if integer else "FP32")
        tensor = {"Name": node.input[0], "Format/Datatype": f"Row major linear {kind} format"}
        return {
            "Name": node.name,
            "LayerType": "CaskConvolution",
            "ParameterType": "Convolution" if node.op_type == "Conv" else "Gemm",
            "Inputs": [tensor],
            "Outputs": [{**tensor, "Dimensions": [1, 2]}],
            "Metadata": f"[ONNX Layer: {node.name}]",
        }


class Context:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses, self.profiler = engine, {}, {}, None

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        if name in self.shapes:
            return self.shapes[name]
        batch = next(iter(self.shapes.values()))[0]
        return tuple(batch if d < 0 else d for d in self.engine.get_tensor_shape(name))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        shapes = dict(self.shapes)  # a graph holds those that it was captured with
        self.engine.trt.driver.give(lambda: self.compute(shapes))
        if self.profiler is not None:
            for layer in self.engine.described()["Layers"]:
                self.profiler.report_layer_time(layer["Name"], 0.5)
        return True

    def compute(self, shapes):
        inputs = {name: self.read(name, shape) for name, shape in shapes.items()}
        names = [value.name for value in self.engine.session.get_outputs()]
        for name, array in zip(names, self.engine.session.run(names, inputs), strict=True):
            ctypes.memmove(self.addresses[name], np.ascontiguousarray(array).ctypes, array.nbytes)

    def read(self, name, shape):
        kind = np.dtype(self.engine.get_tensor_dtype(name))
        size = int(np.prod(shape)) * kind.itemsize
        return np.frombuffer(ctypes.string_at(self.addresses[name], size), kind).reshape(shape)


class Machine:
    """A machine with a fake GPU; `trt` and `driver` tell what was asked of them."""

    def __init__(self, monkeypatch, folder):
        self.patch, self.folder = monkeypatch, folder
        monkeypatch.setenv("FETTLE_CACHE", str(folder))
        monkeypatch.setattr(runtime_module, "_installed", lambda: True)
        self.install()

    def install(self, version="10.13.0", says=None, **driver):
        self.driver = Driver(**driver)
        self.trt = TensorRt(self.driver, version, says)
        self.patch.setattr(runtime_module, "_module", lambda: self.trt)
        self.patch.setattr(cuda, "driver", lambda: self.driver)
