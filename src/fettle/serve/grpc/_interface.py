"""The messages of the protocol: each field with its number on the wire, its name and its type.

`[T]` is a list of T, `{T}` a map from strings to T. Names and numbers are those of the protocol,
so that any client's own messages are read; a test holds them against Triton's client. Of a model's
configuration only what this server tells is here.
"""

from __future__ import annotations

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

MESSAGES: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions [string]",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "ModelMetadataResponse": """
        1 name string, 2 versions [string], 3 platform string,
        4 inputs [ModelMetadataResponse.TensorMetadata],
        5 outputs [ModelMetadataResponse.TensorMetadata]""",
    "ModelMetadataResponse.TensorMetadata": "1 name string, 2 datatype string, 3 shape [int64]",
    "InferParameter": """
        1 bool_param bool, 2 int64_param int64, 3 string_param string, 4 double_param double,
        5 uint64_param uint64""",
    "InferTensorContents": """
        1 bool_contents [bool], 2 int_contents [int32], 3 int64_contents [int64],
        4 uint_contents [uint32], 5 uint64_contents [uint64], 6 fp32_contents [float],
        7 fp64_contents [double], 8 bytes_contents [bytes]""",
    "ModelInferRequest": """
        1 model_name string, 2 model_version string, 3 id string, 4 parameters {InferParameter},
        5 inputs [ModelInferRequest.InferInputTensor],
        6 outputs [ModelInferRequest.InferRequestedOutputTensor], 7 raw_input_contents [bytes]""",
    "ModelInferRequest.InferInputTensor": """
        1 name string, 2 datatype string, 3 shape [int64], 4 parameters {InferParameter},
        5 contents InferTensorContents""",
    "ModelInferRequest.InferRequestedOutputTensor": """
        1 name string, 2 parameters {InferParameter}""",
    "ModelInferResponse": """
        1 model_name string, 2 model_version string, 3 id string, 4 parameters {InferParameter},
        5 outputs [ModelInferResponse.InferOutputTensor], 6 raw_output_contents [bytes]""",
    "ModelInferResponse.InferOutputTensor": """
        1 name string, 2 datatype string, 3 shape [int64], 4 parameters {InferParameter},
        5 contents InferTensorContents""",
    "ModelStreamInferResponse": "1 error_message string, 2 infer_response ModelInferResponse",
    "ModelInput": "1 name string, 2 data_type DataType, 4 dims [int64]",
    "ModelOutput": "1 name string, 2 data_type DataType, 3 dims [int64]",
    "ModelDynamicBatching": """
        1 preferred_batch_size [int32], 2 max_queue_delay_microseconds uint64""",
    "ModelConfig": """
        1 name string, 2 platform string, 17 backend string, 4 max_batch_size int32,
        5 input [ModelInput], 6 output [ModelOutput], 11 dynamic_batching ModelDynamicBatching""",
    "ModelConfigRequest": "1 name string, 2 version string",
    "ModelConfigResponse": "1 config ModelConfig",
    "ModelStatisticsRequest": "1 name string, 2 version string",
    "StatisticDuration": "1 count uint64, 2 ns uint64",
    "InferStatistics": """
        1 success StatisticDuration, 2 fail StatisticDuration, 3 queue StatisticDuration,
        4 compute_input StatisticDuration, 5 compute_infer StatisticDuration,
        6 compute_output StatisticDuration, 7 cache_hit StatisticDuration,
        8 cache_miss StatisticDuration""",
    "InferBatchStatistics": """
        1 batch_size uint64, 2 compute_input StatisticDuration, 3 compute_infer StatisticDuration,
        4 compute_output StatisticDuration""",
    "ModelStatistics": """
        1 name string, 2 version string, 3 last_inference uint64, 4 inference_count uint64,
        5 execution_count uint64, 6 inference_stats InferStatistics,
        7 batch_stats [InferBatchStatistics]""",
    "ModelStatisticsResponse": "1 model_stats [ModelStatistics]",
    "ModelRepositoryParameter": """
        1 bool_param bool, 2 int64_param int64, 3 string_param string, 4 bytes_param bytes""",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "RepositoryIndexResponse": "1 models [RepositoryIndexResponse.ModelIndex]",
    "RepositoryIndexResponse.ModelIndex": """
        1 name string, 2 version string, 3 state string, 4 reason string""",
    "RepositoryModelLoadRequest": """
        1 repository_name string, 2 model_name string, 3 parameters {ModelRepositoryParameter}""",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": """
        1 repository_name string, 2 model_name string, 3 parameters {ModelRepositoryParameter}""",
    "RepositoryModelUnloadResponse": "",
}

ONE_OF: dict[str, str] = {
    "InferParameter": "parameter_choice",
    "ModelRepositoryParameter": "parameter_choice",
}
"""Messages of which one field at most is set."""

DATA_TYPES = (
    *("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "STRING", "BF16"),
)
"""Values of the enumeration `DataType`, by their numbers; TYPE_ stands before each."""

METHODS = (
    *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
    *("ModelConfig", "ModelStatistics"),
    *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
)
"""Each takes its name with `Request` and gives it with `Response`."""

STREAM = "ModelStreamInfer"
"""Takes a stream of `ModelInferRequest` and gives one of `ModelStreamInferResponse`."""
