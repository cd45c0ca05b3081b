"""The table of messages, held against the classes that Triton's client was generated with."""

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from fettle.serve.grpc._interface import DATA_TYPES, MESSAGES, METHODS, ONE_OF, STREAM
from fettle.serve.grpc.messages import message, pool


def theirs(name):
    """Return the descriptor of a message of Triton's."""
    outer, _, inner = name.partition(".")
    for module in (service_pb2, model_config_pb2):
        found = module.DESCRIPTOR.message_types_by_name.get(outer)
        if found is not None:
            return found.nested_types_by_name[inner] if inner else found
    raise AssertionError(f"Triton has no {name}")


def shape_of(field):
    """Return all that matters of a field on the wire, and to who reads a description."""
    other = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        *(field.name, field.number, field.type, field.is_repeated),
        other.full_name if other else None,
        oneof.name if oneof and oneof.name in ONE_OF.values() else None,
        bool(field.message_type and field.message_type.GetOptions().map_entry),
    )


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_is_one_of_tritons(name):
    known = {field.number: shape_of(field) for field in theirs(name).fields}
    ours = {field.number: shape_of(field) for field in message(name).DESCRIPTOR.fields}
    assert ours == {number: known[number] for number in ours}


def test_messages_of_inference_lack_nothing():
    for name in MESSAGES:
        if name.startswith(("ModelInfer", "Infer", "Repository", "Server")):
            assert len(message(name).DESCRIPTOR.fields) == len(theirs(name).fields), name


def test_the_enumeration_is_tritons():
    known = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values
    assert [f"TYPE_{name}" for name in DATA_TYPES] == [each.name for each in known]
    assert [each.number for each in known] == list(range(len(DATA_TYPES)))


def test_methods_take_and_give_what_tritons_do():
    service = pool().FindServiceByName("inference.GRPCInferenceService")
    known = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for name in (*METHODS, STREAM):
        mine, other = service.methods_by_name[name], known.methods_by_name[name]
        assert mine.input_type.full_name == other.input_type.full_name
        assert mine.output_type.full_name == other.output_type.full_name
        assert mine.server_streaming == other.server_streaming
        assert mine.client_streaming == other.client_streaming


def test_what_one_writes_the_other_reads():
    mine = message("ModelInferRequest")(model_name="net", id="7", raw_input_contents=[b"ab"])
    mine.parameters["n"].int64_param = -3
    mine.inputs.add(name="x", datatype="FP32", shape=[1, -1]).contents.fp32_contents.append(0.5)
    other = service_pb2.ModelInferRequest.FromString(mine.SerializeToString())
    assert str(other) == str(mine)
    again = message("ModelInferRequest").FromString(other.SerializeToString())
    assert again == mine
