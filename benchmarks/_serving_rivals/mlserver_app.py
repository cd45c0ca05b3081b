"""MLServer with a runtime of its own, as its documentation's custom runtimes are written."""

import os

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Served(MLModel):
    """One ONNX model."""

    async def load(self) -> bool:
        """Open the model."""
        self.session = ort.InferenceSession(os.environ["SERVED_MODEL"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        (y,) = self.session.run(None, {self.input: x})
        outputs = [NumpyCodec.encode_output(self.output, y)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
