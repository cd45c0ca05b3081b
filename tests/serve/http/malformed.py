"""The corpus of malformed requests: generated, so that it can be read, and kept the same.

Each is named, and comes as the headers and the body of a POST to `infer`, or as raw bytes for what
is wrong below that. `base` is a request that is well-formed.
"""

import copy
import gzip
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Change = Callable[[dict, dict], Any]
DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
             "FP64", "BYTES", "FP16", "BF16", "fp32", "", "FLOAT", "TYPE_FP32")  # fmt: skip
SHAPES = ([], [0], [1], [-1], [1, 2], [0, 1, 8, 8], [-1, 1, 8, 8], [1, 1, 8, 9], [1, 1, 8], [64],
          [1, 1, 8, 8, 1], [1.5, 1, 8, 8], ["1", 1, 8, 8], [True, 1, 8, 8], [None],
          [2**31, 1, 8, 8], [2**63, 1, 8, 8], [2**64, 1, 8, 8], [10**30, 1, 8, 8],
          [2**32, 2**32, 8, 8], [[1, 1, 8, 8]], "1x1x8x8", 64, None, {}, True)  # fmt: skip
VALUES = (None, True, "1", "NaN", [], {}, [1], 1e39, -1e39, 1e400, 10**40, -(10**400))
NO_TEXT = (1, 1.5, True, None, [], {}, ["x"])
NO_OBJECT = (1, "x", True, None, [1], [])
LIES = ("-1", "1.5", "1e3", "0x10", "+5", "", " ", "abc", "99999999999999999999", str(2**63), "1_0",
        "5,5", "999999")  # fmt: skip
WORDS = (b"NaN", b"Infinity", b"-Infinity", b"nan", b"1.", b".5", b"01", b"0x1", b"1e")
SIZES = (0, 1, 4, 2**31, 2**63, 2**64, 10**30, -1, -256, 1.5, "256", None, True, [256])


class Malformed(NamedTuple):
    """One request that is wrong in one way."""

    name: str
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012


def corpus(base: dict) -> list[Malformed]:
    """Return all of them, for a model that takes `base`."""
    kinds = (_fields, _structures, _texts, _binary, _encoded)
    return [each for kind in kinds for each in kind(base)]


def _changing(base: dict) -> Callable[[str, Change], Malformed]:
    """Return what writes `base` with a change to the document, or to its first input."""

    def changed(name: str, change: Change) -> Malformed:
        document = copy.deepcopy(base)
        change(document, document["inputs"][0])
        return Malformed(name, json.dumps(document).encode())

    return changed


def _fields(base: dict) -> Iterator[Malformed]:
    """A tensor whose fields are wrong."""
    changed = _changing(base)
    for field in ("name", "shape", "datatype", "data"):
        yield changed(f"without {field}", lambda d, t, field=field: t.pop(field))
    for value in DATATYPES:
        yield changed(f"datatype {value}", lambda d, t, v=value: t.update(datatype=v))
    for value in NO_TEXT:
        yield changed(f"datatype is {value}", lambda d, t, v=value: t.update(datatype=v))
        yield changed(f"name is {value}", lambda d, t, v=value: t.update(name=v))
        yield changed(f"id is {value}", lambda d, t, v=value: d.update(id=v))
    for value in SHAPES:
        yield changed(f"shape {value}", lambda d, t, v=value: t.update(shape=v))
    for value in VALUES:
        yield changed(
            f"one value {str(value)[:20]}", lambda d, t, v=value: t.update(data=[v, *t["data"][1:]])
        )
    for value in (None, 1, "1 2 3", {}, True, [], [[]], [[[]]]):
        yield changed(f"data is {value}", lambda d, t, v=value: t.update(data=v))
    for count in (1, -1, 1000):
        size = len(base["inputs"][0]["data"]) + count
        yield changed(f"{size} values", lambda d, t, s=size: t.update(data=[0.5] * s))
    yield changed("ragged rows", lambda d, t: t.update(data=[t["data"][:32], t["data"][32:-1]]))
    yield changed("data too deep", lambda d, t: t.update(data=[[[[[[t["data"]]]]]]]))


def _structures(base: dict) -> Iterator[Malformed]:
    """JSON of which the parts don't belong together."""
    changed = _changing(base)
    for value in NO_OBJECT:
        yield changed(f"inputs is {value}", lambda d, t, v=value: d.update(inputs=v))
        if value != []:
            yield changed(f"an input is {value}", lambda d, t, v=value: d.update(inputs=[v]))
            yield changed(f"an output is {value}", lambda d, t, v=value: d.update(outputs=[v]))
            yield changed(f"parameters is {value}", lambda d, t, v=value: d.update(parameters=v))
            yield changed(
                f"its parameters is {value}", lambda d, t, v=value: t.update(parameters=v)
            )
    yield changed("no inputs", lambda d, t: d.pop("inputs"))
    yield changed("one input twice", lambda d, t: d.update(inputs=[t, t]))
    yield changed("an unknown input", lambda d, t: t.update(name="other"))
    yield changed("an input more", lambda d, t: d["inputs"].append({**t, "name": "other"}))
    yield changed("a long name", lambda d, t: t.update(name="a" * 100_000))
    yield changed("a name with a null", lambda d, t: t.update(name="in\0put"))
    yield changed("half a surrogate pair", lambda d, t: t.update(name="\ud800"))
    yield changed("a path as a name", lambda d, t: t.update(name="../../etc/passwd"))
    yield changed("an unknown output", lambda d, t: d.update(outputs=[{"name": "other"}]))
    yield changed("an output without a name", lambda d, t: d.update(outputs=[{}]))
    yield changed("shared memory", lambda d, t: (t.pop("data"), t.update(parameters={
        "shared_memory_region": "/etc/passwd", "shared_memory_byte_size": 256})))  # fmt: skip
    for value in (-1, 1.5, "8", 2**70, None, True):
        yield changed(f"binary of {value} bytes in JSON",
                      lambda d, t, v=value: (t.pop("data"), t.update(
                          parameters={"binary_data_size": v})))  # fmt: skip


def _texts(base: dict) -> Iterator[Malformed]:
    """What isn't JSON, or not as it should be."""
    good = json.dumps(base).encode()
    cut = [1, 2, len(good) // 4, len(good) // 2, len(good) - 20, len(good) - 2, len(good) - 1]
    for at in cut:
        yield Malformed(f"cut after {at} bytes", good[:at])
    for text in (b"", b"null", b"[]", b"1", b'"x"', b"true", b"{}", b"{]", b"{'a': 1}", b"\0",
                 b"\xff\xfe", good + b"x", good * 2, b"x" + good, b"NaN", b"<xml/>", b"a=1&b=2",
                 b"\xef\xbb\xbf" + good, good.replace(b":", b"=", 1), b"\x80\x04K."):  # fmt: skip
        yield Malformed(f"the text {text[:12]!r} of {len(text)} bytes", text)
    for word in WORDS:
        shown = word.decode()
        first = json.dumps(base["inputs"][0]["data"][0]).encode()
        yield Malformed(f"the number {shown}", good.replace(b"[" + first, b"[" + word, 1))
    for depth in (100, 10_000, 200_000):
        yield Malformed(f"{depth} brackets", b"[" * depth)
        deep = b"[" * depth + b"]" * depth
        yield Malformed(f"{depth} levels", b'{"inputs": ' + deep + b"}")
        yield Malformed(f"{depth} objects", b'{"a":' * depth + b"1" + b"}" * depth)
    yield Malformed("inputs twice", b'{"inputs": [], ' + good[1:])
    yield Malformed("shape twice", good.replace(b'"shape"', b'"shape": [1], "shape"', 1))
    yield Malformed("invalid UTF-8 in a name", good.replace(b'"name": "', b'"name": "\xc3\x28', 1))
    yield Malformed("a control character", good.replace(b'"name": "', b'"name": "\n', 1))
    yield Malformed("past the body's limit", b" " * (1 << 20) + good)


def _binary(base: dict) -> Iterator[Malformed]:
    """The binary extension, with lies about lengths and truncated tensors."""
    good, raw, head, sent = _sending(base)
    yield from [sent(f"header length {length!r}", good, raw, length) for length in LIES]
    for off in (-1, 1, -10, 5, len(raw), len(raw) + 1):
        yield sent(f"header length off by {off}", good, raw, str(len(good) + off))
    for off in (-4, -1, 1, 4, len(raw)):
        yield sent(f"a size off by {off}", head(len(raw) + off), raw)
    for size in SIZES:
        yield sent(f"a size of {size}", head(size), raw)
    for part in (0, 1, 3, len(raw) // 2, len(raw) - 1):
        yield sent(f"cut to {part} bytes", good, raw[:part])
    yield sent("bytes left over", good, raw + b"\0")
    yield sent("data in both ways", head(len(raw), data=[0.5] * 64), raw)
    for value in (float("nan"), float("inf"), float("-inf")):
        yield sent(f"binary {value}", good, struct.pack("<f", value) + raw[4:])
    yield sent("binary of another type", head(len(raw), datatype="BYTES"), raw)
    strings = struct.pack("<I", 2**32 - 1) + raw[4:]
    yield sent("strings that lie", head(len(raw), datatype="BYTES", shape=[1]), strings)
    yield sent("one row promised as many", head(len(raw), shape=[1000, 1, 8, 8]), raw)
    yield sent("no JSON before", b"{", raw)


def _sending(base: dict) -> tuple[bytes, bytes, Any, Any]:
    """Return JSON and bytes of a good binary request, and what writes others like them."""
    tensor = base["inputs"][0]
    raw = struct.pack(f"<{len(tensor['data'])}f", *tensor["data"])

    def head(size, **changes):
        entry = {k: v for k, v in tensor.items() if k != "data"}
        entry |= {"parameters": {"binary_data_size": size}, **changes}
        return json.dumps({"inputs": [entry]}).encode()

    def sent(name, text, tail, length=None):
        told = str(len(text)) if length is None else length
        return Malformed(name, text + tail, {"Inference-Header-Content-Length": told})

    return head(len(raw)), raw, head, sent


def _encoded(base: dict) -> Iterator[Malformed]:
    good = json.dumps(base).encode()
    for name in ("br", "zstd", "gzip, gzip", "x" * 500, "none"):
        yield Malformed(f"encoding {name[:12]}", good, {"Content-Encoding": name})
    for name in ("gzip", "deflate"):
        yield Malformed(f"no {name}", good, {"Content-Encoding": name})
        yield Malformed(f"empty {name}", b"", {"Content-Encoding": name})
    gzipped = {"Content-Encoding": "gzip"}
    packed = gzip.compress(good)
    yield Malformed("half a gzip", packed[: len(packed) // 2], gzipped)
    yield Malformed("a gzip twice", packed * 2, gzipped)
    yield Malformed("a gzip with a wrong sum", packed[:-8] + bytes(8), gzipped)
    yield Malformed("a bomb", gzip.compress(bytes(50 << 20), 9), gzipped)
