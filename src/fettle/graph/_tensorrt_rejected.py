"""What TensorRT's parser or builder refuses, and what it takes for something else."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fettle.graph._tensorrt_reading import Rule, integer_type, is_constant, label, nodes, numbers

Found = Iterator[tuple[str, str]]
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_INTEGER_OPERATORS = (
    *("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "QGemm"),
    *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu"),
    *("QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSoftmax", "QAttention"),
)
# What the parser of TensorRT for RTX 1.7 answered `supports_operator` with no.
_UNSUPPORTED = {
    *("AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr"),
    *("BitwiseXor", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "CumProd"),
    *("DFT", "DeformConv", "Det", "ImageDecoder", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix"),
    *("Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement"),
    *("OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceConstruct"),
    *("SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"),
    *("SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer"),
    *("StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique"),
}
_TYPES = {
    *(ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE),
    *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64),
    *(ir.DataType.BOOL, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1),
    ir.DataType.FLOAT8E8M0,
}
_INTEGERS = _TYPES - {
    *(ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE),
    *(ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL),
}
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_OF_ONE_TYPE = (
    *("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "MatMul", "Gemm", "Conv", "Concat"),
    *("ConvTranspose", "PRelu", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"),
)
# The parser goes by the operator's name: these are read under onnxruntime's domain too.
_READ_ANYWHERE = (*_QUANTIZERS, "Gelu")


def _zero_points(model: ir.Model) -> Found:
    for node in nodes(model, *_QUANTIZERS):
        zero = numbers(node.inputs[2]) if len(node.inputs) > 2 else None
        if zero is not None and zero.any():
            shown = zero.reshape(-1)[zero.reshape(-1) != 0][0]
            yield label(node), f"zero point {shown:g}"


def _unsigned_weights(model: ir.Model) -> Found:
    for node in nodes(model, "DequantizeLinear"):
        if is_constant(node.inputs[0]) and integer_type(node) == ir.DataType.UINT8:
            yield label(node), "a weight of uint8"


def _scales(model: ir.Model) -> Found:
    for node in nodes(model, *_QUANTIZERS):
        scale = numbers(node.inputs[1])
        if scale is not None and not (scale > 0).all():
            wrong = scale.reshape(-1)[~(scale.reshape(-1) > 0)]
            yield label(node), f"{wrong.size} of {scale.size} scales not positive: {wrong[0]:g}"


def _integer_biases(model: ir.Model) -> Found:
    for node in nodes(model, "DequantizeLinear"):
        if integer_type(node) == ir.DataType.INT32:
            yield label(node), "INT32 through DequantizeLinear"


def _quantized_types(model: ir.Model) -> Found:
    for node in nodes(model, *_QUANTIZERS):
        kind = integer_type(node)
        if kind not in (None, ir.DataType.INT32) and kind not in _INTEGERS:
            assert kind is not None
            yield label(node), f"quantized to {kind.name}"


def _integer_operators(model: ir.Model) -> Found:
    for node in nodes(model, *_INTEGER_OPERATORS):
        yield label(node), f"the operator {node.op_type}"


def _unsupported(model: ir.Model) -> Found:
    for node in nodes(model):
        if node.domain in ("", "ai.onnx") and node.op_type in _UNSUPPORTED:
            yield label(node), f"the operator {node.op_type}"


def _custom(model: ir.Model) -> Found:
    known = (*_INTEGER_OPERATORS, *_READ_ANYWHERE)
    for node in nodes(model):
        if node.domain not in ("", "ai.onnx") and node.op_type not in known:
            yield label(node), f"the operator {node.domain}.{node.op_type}"


def _mixed(model: ir.Model) -> Found:
    for node in nodes(model, *_OF_ONE_TYPE):
        found = {v.dtype for v in node.inputs if v is not None and v.dtype in _FLOATS}
        if len(found) > 1:
            yield label(node), f"operands of {' and '.join(sorted(t.name for t in found if t))}"


def _types(model: ir.Model) -> Found:
    held = [v for graph in model.graphs() for v in (*graph.inputs, *graph.initializers.values())]
    made = [value for node in nodes(model) for value in node.outputs]
    quantizing = {zero for node in nodes(model, *_QUANTIZERS) for zero in node.inputs[2:]}
    quantizing |= {v for node in nodes(model, *_QUANTIZERS) for v in (node.inputs[0],)}
    for value in dict.fromkeys((*held, *made)):
        kind = value.dtype
        if kind is None or kind in _TYPES or value in quantizing:
            continue
        if kind is not ir.DataType.UNDEFINED:
            yield value.name or "", f"a tensor of {kind.name}"


def _unsigned_tensors(model: ir.Model) -> Found:
    for node in nodes(model, "Cast"):
        unsigned = node.attributes["to"].as_int() == ir.DataType.UINT8
        if unsigned and not node.outputs[0].is_graph_output():
            yield label(node), "an intermediate tensor of uint8"


def _stray_integers(model: ir.Model) -> Found:
    """Integers of a file that something else than a DequantizeLinear reads."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.dtype is not ir.DataType.INT8 or not value.shape:
                continue
            readers = [u.node for u in value.uses() if u.node.op_type not in _QUANTIZERS]
            if any(reader.op_type not in _INTEGER_OPERATORS for reader in readers):
                yield value.name or "", f"int8 weights that {readers[0].op_type} reads"


def _narrow_activations(model: ir.Model) -> Found:
    for node in nodes(model, "QuantizeLinear"):
        if integer_type(node) == ir.DataType.INT4 and not is_constant(node.inputs[0]):
            yield label(node), "an activation of int4"


def _unsigned_activations(model: ir.Model) -> Found:
    for node in nodes(model, "QuantizeLinear"):
        zero = numbers(node.inputs[2]) if len(node.inputs) > 2 else None
        if integer_type(node) == ir.DataType.UINT8 and (zero is None or not zero.any()):
            yield label(node), "uint8 with zero point 0" if zero is not None else "no zero point"


_SYMMETRIC = "quantize symmetrically, to int8 with zero point 0, as `graph.static_int8` does"
RULES = (
    Rule("zero-point", "rejected", _SYMMETRIC, _zero_points),
    Rule("unsigned-weights", "rejected", _SYMMETRIC, _unsigned_weights),
    Rule(
        "scale",
        "rejected",
        "give a channel without weights the scale 1; calibrate on data that isn't constant",
        _scales,
    ),
    Rule(
        "integer-bias",
        "rejected",
        "leave biases in float (onnxruntime.quantization: extra_options={'QuantizeBias': False})",
        _integer_biases,
    ),
    Rule("quantized-type", "rejected", f"{_SYMMETRIC}; weights may be int4 too", _quantized_types),
    Rule(
        "integer-operator",
        "rejected",
        "write quantization as QuantizeLinear and DequantizeLinear around float operators:"
        " `graph.static_int8` on the float model",
        _integer_operators,
    ),
    Rule(
        "unsupported-operator",
        "rejected",
        "write it with operators that TensorRT has, or run this model on another runtime",
        _unsupported,
    ),
    Rule(
        "custom-operator",
        "rejected",
        "load a TensorRT plug-in of that name, or write it with ONNX's own operators",
        _custom,
    ),
    Rule(
        "mixed-types",
        "rejected",
        "cast one of the operands: TensorRT promotes no types; `graph.half` writes the casts",
        _mixed,
    ),
    Rule(
        "tensor-type",
        "rejected",
        "use float, half, bfloat16, int8, int32, int64 or bool; do strings before the model",
        _types,
    ),
    Rule("unsigned-tensor", "rejected", "cast to int32 in its place", _unsigned_tensors),
    Rule(
        "stray-integers",
        "rejected",
        "put the DequantizeLinear right behind the integers, before what reads them",
        _stray_integers,
    ),
    Rule("narrow-activations", "rejected", "quantize activations to int8", _narrow_activations),
    Rule(
        "unsigned-activations",
        "wrong",
        f"TensorRT takes it for int8 and clips at 127: {_SYMMETRIC}",
        _unsigned_activations,
    ),
)
