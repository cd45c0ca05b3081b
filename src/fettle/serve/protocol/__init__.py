"""The Open Inference Protocol, version 2: pure functions between bytes and arrays.

Nothing here knows sockets or event loops. REST and gRPC read a request into an `InferRequest` and
write an `InferResponse`; whatever is malformed is refused in one place, with what was expected and
what came.

Specification: https://kserve.github.io/website/latest/modelserving/data_plane/v2_protocol/, with
the binary tensor, classification and parameters extensions as NVIDIA's Triton has them.
"""
