"""PyTriton as its documentation begins: a real Triton before a function of this process."""

import os

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

SESSION = ort.InferenceSession(os.environ["SERVED_MODEL"])
INPUT, OUTPUT = SESSION.get_inputs()[0], SESSION.get_outputs()[0]


@batch
def infer(**inputs):
    """Run the model."""
    return SESSION.run(None, {INPUT.name: inputs[INPUT.name]})


if __name__ == "__main__":
    port = int(os.environ["SERVED_PORT"])
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=port + 1,
        metrics_port=port + 2,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="m",
            infer_func=infer,
            inputs=[Tensor(name=INPUT.name, dtype=np.float32, shape=tuple(INPUT.shape[1:]))],
            outputs=[Tensor(name=OUTPUT.name, dtype=np.float32, shape=tuple(OUTPUT.shape[1:]))],
            config=ModelConfig(max_batch_size=64),
        )
        triton.serve()
