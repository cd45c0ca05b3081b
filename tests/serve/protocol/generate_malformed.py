"""Write the corpus of malformed requests: `python tests/serve/protocol/generate_malformed.py`.

Every one has to be refused, whatever the server is. A case is a JSON object on a line of its own:
`name`; `model`, one of `MODELS`; `length`, the value of `Inference-Header-Content-Length` or null;
and the body in base64, gzipped first, for some are long and dull. The kept file is what tests read,
so that a case is never lost by a change here.
"""

import base64
import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path

KEPT = Path(__file__).with_name("malformed.jsonl")
MODELS = {
    "images": ([["image", "float32", [-1, 2, 3]]], [["scores", "float32", [-1, 5]]]),
    "pairs": (
        [["ids", "int64", [-1, 4]], ["mask", "bool", [-1, 4]]],
        [["half", "float16", [-1, 2]], ["best", "int64", [-1]]],
    ),
    "texts": ([["text", "object", [-1, 1]]], [["vector", "float32", [-1, 3]]]),
    "bytes": ([["level", "int8", [-1, 2]], ["tone", "uint16", [-1, 2]]], [["y", "int8", [-1, 2]]]),
    "halves": ([["h", "float16", [-1, 2]], ["b", "bfloat16", [-1, 2]]], [["y", "int8", [-1]]]),
}
"""Inputs and outputs of each model: name, type of numpy, shape. A batch has at most 8 rows."""

GOOD = {"name": "image", "datatype": "FP32", "shape": [1, 2, 3], "data": [1, 2, 3, 4, 5, 6]}
IDS = {"name": "ids", "datatype": "INT64", "shape": [1, 4], "data": [1, 2, 3, 4]}
MASK = {"name": "mask", "datatype": "BOOL", "shape": [1, 4], "data": [True] * 4}
TEXT = {"name": "text", "datatype": "BYTES", "shape": [1, 1]}
LEVEL = {"name": "level", "datatype": "INT8", "shape": [1, 2], "data": [1, 2]}
TONE = {"name": "tone", "datatype": "UINT16", "shape": [1, 2], "data": [1, 2]}

Case = tuple[str, str, int | None, bytes]
SCALARS = {
    "null": None,
    "true": True,
    "number": 1,
    "float": 1.5,
    "text": "x",
    "list": [],
    "map": {},
}


def but(entry, **changes):
    """Return the entry with changes; `...` leaves a key out."""
    return {k: v for k, v in (entry | changes).items() if v is not ...}


def body(*inputs, **more):
    return json.dumps({"inputs": list(inputs), **more}).encode()


def text_of(tensor):
    return b'{"inputs":[' + tensor + b"]}"


def cases() -> Iterator[Case]:
    """Yield every case."""
    for model, found in (
        ("images", no_json()),
        ("images", wrong_documents()),
        ("images", wrong_fields()),
        ("images", wrong_shapes()),
        ("images", wrong_data()),
        ("images", wrong_outputs()),
        ("images", wrong_keys()),
    ):
        for name, document in found:
            yield name, model, None, document
    yield from wrong_numbers()
    yield from wrong_models()
    yield from wrong_lengths()
    yield from wrong_bytes()


def no_json():
    whole = body(GOOD)
    for name, document in {
        "empty": b"",
        "blank": b"  \n\t ",
        "nul": b"\0",
        "nul after": whole + b"\0",
        "two documents": whole + whole,
        "brace after": whole + b"}",
        "comma last": whole[:-1] + b",}",
        "comment": whole[:-1] + b"/* x */}",
        "single quotes": whole.replace(b'"', b"'"),
        "bare keys": whole.replace(b'"inputs"', b"inputs"),
        "byte order mark": b"\xef\xbb\xbf" + whole,
        "UTF-16": whole.decode().encode("utf-16"),
        "not UTF-8": whole.replace(b"image", b"imag\xff"),
        "lone surrogate": whole.replace(b"image", b"imag\\ud800"),
        "raw newline in a string": whole.replace(b"image", b"im\nage"),
        "control character": whole.replace(b"image", b"im\x01age"),
        "bad escape": whole.replace(b"image", b"im\\xage"),
        "HTML": b"<html><body>hello</body></html>",
        "form": b"inputs=image&data=1",
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.",
        "gzip": gzip.compress(whole, mtime=0),
        "zip": b"PK\x03\x04" + bytes(30),
        "YAML": b"inputs:\n- name: image\n",
        "protobuf": b"\n\x03net*\x0c\n\x05image\x12\x04FP32",
        "leading zero": whole.replace(b"[1, 2, 3]", b"[01, 2, 3]"),
        "plus sign": whole.replace(b"[1, 2, 3]", b"[+1, 2, 3]"),
        "hexadecimal": whole.replace(b"[1, 2, 3]", b"[0x1, 2, 3]"),
        "underscore": whole.replace(b"[1, 2, 3]", b"[1_0, 2, 3]"),
        "point first": whole.replace(b", 6]", b", .6]"),
        "point last": whole.replace(b", 6]", b", 6.]"),
        "half an exponent": whole.replace(b", 6]", b", 6e]"),
        "NaN": whole.replace(b", 6]", b", NaN]"),
        "Infinity": whole.replace(b", 6]", b", Infinity]"),
        "minus Infinity": whole.replace(b", 6]", b", -Infinity]"),
        "True": whole.replace(b", 6]", b", True]"),
        "None": whole.replace(b", 6]", b", None]"),
        "undefined": whole.replace(b", 6]", b", undefined]"),
    }.items():
        yield f"no JSON: {name}", document
    for size in (1, 2, len(whole) // 2, len(whole) - 2, len(whole) - 1):
        yield f"no JSON: cut after {size}", whole[:size]
    for depth in (100, 1_000, 20_000, 100_000):
        yield f"no JSON: {depth} open lists", b"[" * depth
        yield f"no JSON: {depth} open maps", b'{"inputs":' * depth
        yield f"deep: {depth} lists", b"[" * depth + b"]" * depth


def wrong_documents():
    for name, value in SCALARS.items():
        yield f"document: {name}", json.dumps(value).encode()
        yield f"inputs: {name}", json.dumps({"inputs": value}).encode()
        yield f"input: {name}", body(value)
        yield f"a second input: {name}", body(GOOD, value)
        if name not in ("list", "text"):
            yield f"outputs: {name}", body(GOOD, outputs=value)
        yield f"output: {name}", body(GOOD, outputs=[value])
        if name != "map":
            yield f"parameters: {name}", body(GOOD, parameters=value)
            yield f"an input's parameters: {name}", body(but(GOOD, parameters=value))
        if name != "text":
            yield f"id: {name}", body(GOOD, id=value)
        if name in ("null", "list", "map"):
            yield f"a parameter: {name}", body(GOOD, parameters={"mine": value})
    yield "id: long", body(GOOD, id="x" * 257)
    yield "inputs: as a map by name", json.dumps({"inputs": {"image": [1, 2]}}).encode()
    yield "the old protocol", json.dumps({"instances": [[1, 2, 3]]}).encode()
    yield "inputs: another case", json.dumps({"Inputs": [GOOD]}).encode()
    yield "binary_data_output: text", body(GOOD, parameters={"binary_data_output": "true"})
    yield "binary_data_output: number", body(GOOD, parameters={"binary_data_output": 1})
    for depth in (16, 30, 500, 5_000):
        nested = b"[" * depth + b"1" + b"]" * depth
        yield f"deep: {depth} in parameters", body(GOOD)[:-1] + b',"x":' + nested + b"}"
        data = json.dumps(but(GOOD, data=...)).encode()[:-1] + b',"data":' + nested + b"}"
        yield f"deep: {depth} in data", text_of(data)


def wrong_fields():
    for key in ("name", "datatype", "shape", "data"):
        yield f"{key}: missing", body(but(GOOD, **{key: ...}))
        for name, value in SCALARS.items():
            yield f"{key}: {name}", body(but(GOOD, **{key: value}))
    for name in ("", "Image", "image ", "imagé", "image\0", "../image", "x" * 100_000, "🐈" * 50):
        yield f"name: {name[:12]!r}", body(but(GOOD, name=name))
    for name in (
        "fp32",
        "FLOAT",
        "float32",
        "FP64",
        "FP16",
        "INT32",
        "BOOL",
        "BYTES",
        "STRING",
        "",
    ):
        yield f"datatype: {name!r}", body(but(GOOD, datatype=name))
    for name in ("TYPE_FP32", "FP32 ", "FP32\0", "<f4", "object", "F" * 100_000):
        yield f"datatype: {name[:12]!r}", body(but(GOOD, datatype=name))
    yield "an input twice", body(GOOD, GOOD)
    yield "an input too many", body(GOOD, but(GOOD, name="other"))
    for key in ("region", "byte_size", "offset"):
        shared = {"shared_memory_region": "r", f"shared_memory_{key}": "../../etc"}
        yield f"shared memory: {key}", body(but(GOOD, data=..., parameters=shared))
    for name, size in SCALARS.items():
        parameters = {"binary_data_size": size}
        yield f"binary_data_size: {name}", body(but(GOOD, data=..., parameters=parameters))
    yield "data and binary_data_size", body(but(GOOD, parameters={"binary_data_size": 24}))
    yield "data as a path", body(but(GOOD, data="file:///etc/passwd"))
    yield "data as a URL", body(but(GOOD, data=["http://127.0.0.1/"] * 6))
    yield "data as base64", body(but(GOOD, data={"b64": "AAAA"}))


def wrong_shapes():
    for shape in (
        *([6], [1, 6], [2, 3], [1, 3, 2], [1, 2, 3, 1], [1, 1, 2, 3], [0, 2, 3], [-1, 2, 3]),
        *([2, 2, 3], [1, -2, -3], [1, 2, -3], [1.0, 2, 3], ["1", 2, 3], [None, 2, 3]),
        *([True, 2, 3], [[1], 2, 3], [[1, 2, 3]], {"0": 1}, "1,2,3", [9, 2, 3]),
        *([2**31, 2, 3], [2**32 + 1, 2, 3], [2**63, 2, 3], [2**64 - 1, 2, 3], [2**64 + 1, 2, 3]),
        *([10**30, 2, 3], [2**62, 2**62, 2**62], [2**61, 2, 4], [-(2**63), 2, 3], [1] * 1000),
    ):
        yield f"shape: {str(shape)[:60]}", body(but(GOOD, shape=shape))


def wrong_data():
    for size in (0, 1, 5, 7, 12, 1000):
        yield f"data: {size} numbers", body(but(GOOD, data=[0.5] * size))
    for name, value in (SCALARS | {"a number as text": "1.0"}).items():
        if name not in ("number", "float"):
            yield f"data: {name} among numbers", body(but(GOOD, data=[1, 2, value, 4, 5, 6]))
    for data in (
        *([[[1, 2, 3], [4, 5]]], [[[1, 2], [3, 4], [5, 6]]], [[1, 2, 3], [4, 5, 6]]),
        *([[[1, 2, 3], [4, 5, 6]], []], [[[1, 2, 3]], [[4, 5, 6]]], [[[1, 2, 3], 4]]),
        *([[1, 2, 3, 4, 5, 6]], [[[1, 2, 3], [4, 5, [6]]]], [1, [2, 3], 4, 5, 6]),
        *([[[[1, 2, 3], [4, 5, 6]]]], [[[1, 2, 3], "abc"]], [[[1, 2, 3], {"0": 4}]]),
    ):
        yield f"data: {json.dumps(data)}", body(but(GOOD, data=data))
    for number in ("1e39", "-1e39", "3.5e38", "1e308", "1e400", "-1e400", "9" * 400, "9" * 5000):
        tensor = json.dumps(but(GOOD, data=[1, 2, 3, 4, 5, 77])).encode()
        yield (
            f"data: {number[:12]}, {len(number)} characters",
            text_of(tensor.replace(b"77", number.encode())),
        )


def wrong_outputs():
    for name in ("", "Scores", "scores ", "image", "x" * 50_000):
        yield f"output: {name[:12]!r}", body(GOOD, outputs=[{"name": name}])
    yield "output: twice", body(GOOD, outputs=[{"name": "scores"}] * 2)
    yield "output: no name", body(GOOD, outputs=[{"parameters": {}}])
    yield "outputs: 10,000", body(GOOD, outputs=[{"name": f"o{n}"} for n in range(10_000)])
    for name, value in SCALARS.items():
        if name != "map":
            wanted = {"name": "scores", "parameters": value}
            yield f"an output's parameters: {name}", body(GOOD, outputs=[wanted])
        if name != "true":
            wanted = {"name": "scores", "parameters": {"binary_data": value}}
            yield f"binary_data: {name}", body(GOOD, outputs=[wanted])
        if name != "number":
            wanted = {"name": "scores", "parameters": {"classification": value}}
            yield f"classification: {name}", body(GOOD, outputs=[wanted])
    wanted = {"name": "scores", "parameters": {"classification": -1}}
    yield "classification: -1", body(GOOD, outputs=[wanted])
    shared = {"name": "scores", "parameters": {"shared_memory_region": "r"}}
    yield "an output in shared memory", body(GOOD, outputs=[shared])


def wrong_keys():
    tensor = json.dumps(GOOD).encode()
    whole = body(GOOD)
    for name, document in {
        "inputs": whole[:-1] + b',"inputs":[]}',
        "id": b'{"id":"a",' + whole[1:-1] + b',"id":"b"}',
        "parameters": whole[:-1] + b',"parameters":{},"parameters":{"binary_data_output":true}}',
        "a parameter": whole[:-1] + b',"parameters":{"a":1,"a":2}}',
        "name": text_of(tensor[:-1] + b',"name":"image"}'),
        "shape": text_of(b'{"shape":[9,9,9],' + tensor[1:]),
        "datatype": text_of(b'{"datatype":"BYTES",' + tensor[1:]),
        "data": text_of(tensor[:-1] + b',"data":[6,5,4,3,2,1]}'),
        "an escaped key": b'{"id":"a",' + whole[1:-1] + b',"\\u0069d":"b"}',
        "a colon to hide": b'{"id":"a",' + whole[1:-1] + b',"id":"\\u003a"}',
        "an output": whole[:-1] + b',"outputs":[{"name":"scores","name":"scores"}]}',
    }.items():
        yield f"twice: {name}", document


def wrong_numbers() -> Iterator[Case]:
    """Yield numbers that their type can't hold."""
    for number in ("1.0", "1.5", "1e2", "true", '"1"', "null", "9223372036854775808", "1e30"):
        document = body(IDS, MASK).replace(b"[1, 2, 3, 4]", f"[1, 2, 3, {number}]".encode())
        yield f"INT64: {number}", "pairs", None, document
    for number in (-(2**63) - 1, 2**64, 10**400):
        document = body(but(IDS, data=[0, 0, 0, number]), MASK)
        yield f"INT64: {str(number)[:24]}", "pairs", None, document
    for value in (0, 1, 2, "true", None, 1.0):
        yield (
            f"BOOL: {value!r}",
            "pairs",
            None,
            body(IDS, but(MASK, data=[True, True, True, value])),
        )
    for value in (128, -129, 300, 2**31, -(2**40), 0.0, True, "1"):
        yield f"INT8: {value!r}", "bytes", None, body(but(LEVEL, data=[0, value]), TONE)
    for value in (-1, 65536, 2**32, -(2**63), 1.0, False, "1", None):
        yield f"UINT16: {value!r}", "bytes", None, body(LEVEL, but(TONE, data=[0, value]))
    for value in (1, 1.5, True, None, [], {}, ["x", "y"]):
        yield f"BYTES: {value!r}", "texts", None, body(but(TEXT, data=[value]))
    for name, datatype in (("h", "FP16"), ("b", "BF16")):
        entry = {"name": name, "datatype": datatype, "shape": [1, 2], "data": [1, 2]}
        yield f"{datatype} in JSON", "halves", None, body(entry)


def wrong_models() -> Iterator[Case]:
    """Yield what one model takes and another doesn't, and inputs that don't fit each other."""
    yield "one input of two", "pairs", None, body(IDS)
    yield "the other input of two", "pairs", None, body(MASK)
    yield "no input", "pairs", None, body()
    yield "another model's input", "pairs", None, body(GOOD)
    wide = but(MASK, shape=[2, 4], data=[True] * 8)
    yield "two batch sizes", "pairs", None, body(IDS, wide)
    yield "FP16 output as JSON", "pairs", None, body(IDS, MASK)
    half = [{"name": "half", "parameters": {"binary_data": False}}]
    yield "FP16 output as JSON by name", "pairs", None, body(IDS, MASK, outputs=half)
    best = [{"name": "best", "parameters": {"classification": 1}}]
    yield "classes of an index", "pairs", None, body(IDS, MASK, outputs=best)
    yield "no JSON, two inputs", "pairs", 0, bytes(36)
    yield "no JSON, texts", "texts", 0, b"\1\0\0\0a"
    for size in (0, 1, 23, 25, 24 * 9):
        yield f"no JSON, {size} bytes", "images", 0, bytes(size)
    yield "no JSON, NaN", "images", 0, b"\xff" * 24


def raw(entry, size, data, **more):
    """Return a body with a tensor's bytes after its JSON, and the length of that."""
    head = body(but(entry, data=..., parameters={"binary_data_size": size}), **more)
    return len(head), head + data


def wrong_lengths() -> Iterator[Case]:
    """Yield headers that lie about where the JSON ends."""
    length, whole = raw(GOOD, 24, bytes(24))
    lies = (1, 2, length - 1, length + 1, length + 23, len(whole), len(whole) + 1, 10**6)
    for lie in (-1, -length, *lies, 2**31, 2**32 + length, 2**63, 2**64, 10**30):
        yield f"header length: {lie} for {length}", "images", lie, whole
    yield "header length: none, bytes after the JSON", "images", None, whole
    plain = body(GOOD)
    for lie in (0, len(plain) - 1, len(plain) + 1):
        yield f"header length: {lie} for {len(plain)}, no bytes", "images", lie, plain
    yield "bytes nobody asked for", "images", len(plain), plain + bytes(24)


def wrong_bytes() -> Iterator[Case]:
    """Yield tensors as bytes that are too few, too many, or of another kind."""
    for size, sent in (
        *((24, 0), (24, 23), (24, 25), (23, 23), (25, 25), (0, 24), (0, 0), (48, 48), (48, 24)),
        *((2**31, 24), (2**32 + 24, 24), (2**63, 24), (2**64 + 24, 24), (-24, 24), (-1, 24)),
        *((24.0, 24), ("24", 24), (True, 1), (None, 24), ([24], 24), (10**30, 24)),
    ):
        length, whole = raw(GOOD, size, bytes(sent))
        yield f"bytes: {size!r} said, {sent} sent", "images", length, whole
    for name, number in (("NaN", "nan"), ("infinity", "inf"), ("minus infinity", "-inf")):
        data = struct.pack("<6f", 1, 2, 3, 4, 5, float(number))
        yield f"bytes: {name}", "images", *raw(GOOD, 24, data)
    yield "bytes: an odd NaN", "images", *raw(GOOD, 24, bytes(20) + b"\x01\0\xa0\x7f")
    yield "bytes: of another shape", "images", *raw(but(GOOD, shape=[2, 2, 3]), 24, bytes(24))
    yield "bytes: of a huge shape", "images", *raw(but(GOOD, shape=[2**62, 2, 3]), 24, bytes(24))
    yield "bytes: of another type", "images", *raw(but(GOOD, datatype="FP64"), 48, bytes(48))
    for truth in (2, 255):
        data = bytes([1, 0, truth, 1])
        head = body(IDS, but(MASK, data=..., parameters={"binary_data_size": 4}))
        yield f"bytes: BOOL {truth}", "pairs", len(head), head + data
    for name, data in {
        "nothing": b"",
        "half a length": b"\1\0",
        "a length alone": b"\1\0\0\0",
        "a length past the end": b"\5\0\0\0abcd",
        "a huge length": b"\xff\xff\xff\xffabcd",
        "a sign": b"\xff\xff\xff\x7fabcd",
        "two of one": b"\1\0\0\0a\1\0\0\0b",
        "a byte after": b"\1\0\0\0a\0",
        "a length after": b"\1\0\0\0a\0\0\0\0",
        "not UTF-8": b"\2\0\0\0\xff\xfe",
        "half a letter": b"\1\0\0\0\xc3",
        "a surrogate": b"\3\0\0\0\xed\xa0\x80",
    }.items():
        yield f"texts: {name}", "texts", *raw(TEXT, len(data), data)
    many = but(TEXT, shape=[8, 1])
    yield "texts: seven of eight", "texts", *raw(many, 28, bytes(28))
    yield "texts: nine of eight", "texts", *raw(many, 36, bytes(36))
    first = but(IDS, data=..., parameters={"binary_data_size": 32})
    second = but(MASK, data=..., parameters={"binary_data_size": 4})
    head = body(first, second)
    yield "bytes: those of the second missing", "pairs", len(head), head + bytes(32)
    yield "bytes: those of both swapped short", "pairs", len(head), head + bytes(35)
    head = body(second, but(first, parameters={"binary_data_size": 33}))
    yield "bytes: the second one too long", "pairs", len(head), head + bytes(37)


def line_of(case: Case) -> str:
    name, model, length, content = case
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return json.dumps({"name": name, "model": model, "length": length, "body": packed})


if __name__ == "__main__":
    KEPT.write_text("".join(f"{line_of(case)}\n" for case in cases()))
