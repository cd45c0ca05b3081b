"""NVIDIA's own parser and builder, from the package `tensorrt-rtx`, which need no GPU.

What a layer runs in is read from the list that the builder logs: inspecting an engine would need a
device to load it on.
"""

import re
from dataclasses import dataclass, field

_TENSOR = re.compile(r"Datatype: (\w+)")
_LAYER = re.compile(
    r"^Name: (.+?), LayerType: (\w+), Inputs: (.*?)(?:, Constants: .*)?, Outputs: (.*)$"
)
PRODUCTS = ("correlation", "gemm", "deconv", "runtime_fusion")


@dataclass
class Layer:
    """One layer of the engine; `reads` and `writes` are the types of its activations."""

    name: str
    kind: str
    reads: list
    writes: list


@dataclass
class Attempt:
    """How far a model came ("parse", "build" or "done"), and the layers that were made of it."""

    stage: str
    errors: list
    layers: list = field(default_factory=list)
    quantized: set = field(default_factory=set)

    @property
    def products(self):
        """Layers that multiply by weights, whatever they run in."""
        return [layer for layer in self.layers if layer.kind in PRODUCTS]

    @property
    def in_integers(self):
        """Products whose activations are int8, and that no cast was fused into."""
        plain = (layer for layer in self.products if layer.kind != "runtime_fusion")
        return [layer for layer in plain if set(layer.reads) == {"Int8"}]

    def times(self, word):
        """Return how often an operation was fused into the layers."""
        return sum(layer.name.count(word) for layer in self.layers)

    def written(self, kind):
        """Return how many tensors of a type are written."""
        return sum(layer.writes.count(kind) for layer in self.layers)


def attempt(rtx, model, profile=True):
    """Parse and build `model` (a proto) with NVIDIA's package `rtx`."""
    log, lines = _logger(rtx)
    builder = rtx.Builder(log)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        return Attempt("parse", [parser.get_error(i).desc() for i in range(parser.num_errors)])
    config = builder.create_builder_config()
    config.profiling_verbosity = rtx.ProfilingVerbosity.DETAILED
    if profile:
        _give_profile(builder, config, network)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    quantized = {x.get_output(0).dtype.name for x in layers if x.type.name == "QUANTIZE"}
    engine = builder.build_serialized_network(network, config)
    errors = [text for severity, text in lines if "ERROR" in severity]
    if engine is None:
        return Attempt("build", errors)
    return Attempt("done", errors, _layers(lines), quantized)


def _logger(rtx):
    lines = []

    class Log(rtx.ILogger):
        def __init__(self):
            rtx.ILogger.__init__(self)

        def log(self, severity, message):
            lines.append((severity.name, message))

    return Log(), lines


def _give_profile(builder, config, network):
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        sizes = [tuple(n if d < 0 else d for d in tensor.shape) for n in (1, 2, 4)]
        profile.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(profile)


def _layers(lines):
    listed = [text for _, text in lines if text.startswith("Layers:")]
    found = [_LAYER.match(line) for text in listed for line in text.splitlines()]
    return [Layer(m[1], m[2], _TENSOR.findall(m[3]), _TENSOR.findall(m[4])) for m in found if m]
