"""KServe's model server with a model of its own, as its documentation's custom predictors are."""

import os

import kserve
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid


class Served(Model):
    """One ONNX model."""

    def load(self):
        """Open the model."""
        self.session = ort.InferenceSession(os.environ["SERVED_MODEL"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        self.ready = True
        return self.ready

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        """Run the model."""
        del headers, response_headers
        (y,) = self.session.run(None, {self.input: payload.inputs[0].as_numpy()})
        output = InferOutput(self.output, list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=payload.use_binary_outputs)
        return InferResponse(generate_uuid(), self.name, [output])


if __name__ == "__main__":
    kserve.logging.configure_logging()
    model = Served("m")
    model.load()
    port = int(os.environ["SERVED_PORT"])
    ModelServer(http_port=port, enable_grpc=False, workers=1).start([model])
