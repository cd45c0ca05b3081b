"""The protocol's message classes, made from the table of its fields.

They live in a pool of their own: a client of another make in the same process, with its own classes
of the same names, is not in the way.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

from fettle.serve.grpc._interface import DATA_TYPES, MESSAGES, METHODS, ONE_OF, PACKAGE, STREAM

_FILE = "fettle/open_inference.proto"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in (
        *("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64"),
    )
}


def message(name: str) -> Any:
    """Return the class of a message.

    Example:
        >>> message("ServerLiveResponse")(live=True).live
        True
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@functools.cache
def pool() -> Any:
    """Return the pool that holds the protocol, and gRPC's own health service."""
    from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

    found = descriptor_pool.DescriptorPool()
    found.Add(_file())
    found.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
    return found


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    types = file.enum_type.add(name="DataType")
    for number, name in enumerate(DATA_TYPES):
        types.value.add(name=f"TYPE_{name}", number=number)
    for name, fields in MESSAGES.items():
        _add_fields(_add_message(file, name), name, fields)
    _add_service(file)
    return file


def _add_message(file: Any, name: str) -> Any:
    """Add a message to the file, or to the message that its name begins with."""
    outer, _, inner = name.rpartition(".")
    if not outer:
        return file.message_type.add(name=inner)
    holder = next(each for each in file.message_type if each.name == outer)
    return holder.nested_type.add(name=inner)


def _add_fields(found: Any, name: str, fields: str) -> None:
    if name in ONE_OF:
        found.oneof_decl.add(name=ONE_OF[name])
    for field in filter(None, map(str.split, fields.split(","))):
        number, label, kind = field
        added = found.field.add(name=label, number=int(number), label=_Field.LABEL_OPTIONAL)
        if name in ONE_OF:
            added.oneof_index = 0
        if kind[0] in "[{":
            added.label = _Field.LABEL_REPEATED
        if kind[0] == "{":
            kind = _add_entry(found, name, label, kind)
        _set_type(added, kind.strip("[]"))


def _add_entry(found: Any, name: str, label: str, kind: str) -> str:
    """Add the message of a map's entries, and return its name."""
    entry = found.nested_type.add(name=f"{label.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    _add_fields(entry, "", f"1 key string, 2 value {kind.strip('{}')}")
    return f"{name}.{entry.name}"


def _set_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind == "DataType" else _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"


def _add_service(file: Any) -> None:
    service = file.service.add(name="GRPCInferenceService")
    for name in METHODS:
        service.method.add(
            name=name,
            input_type=f".{PACKAGE}.{name}Request",
            output_type=f".{PACKAGE}.{name}Response",
        )
    service.method.add(
        name=STREAM,
        input_type=f".{PACKAGE}.ModelInferRequest",
        output_type=f".{PACKAGE}.{STREAM}Response",
        client_streaming=True,
        server_streaming=True,
    )
