"""The Open Inference Protocol over gRPC: `GRPCInferenceService`, health and reflection.

It runs in the event loop of the HTTP server and asks the same `Service`.
"""

from fettle.serve.grpc.server import GrpcServer, start_grpc

__all__ = ["GrpcServer", "start_grpc"]
