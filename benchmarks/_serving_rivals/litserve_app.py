"""LitServe as its documentation begins: one worker, JSON in and out, one request a run."""

import os

import litserve as ls
import numpy as np
import onnxruntime as ort


class Api(ls.LitAPI):
    """One ONNX model."""

    def setup(self, device):
        """Open the model."""
        del device
        self.session = ort.InferenceSession(os.environ["SERVED_MODEL"])
        self.name = self.session.get_inputs()[0].name

    def decode_request(self, request):
        """Return the array of a request."""
        return np.asarray(request["input"], np.float32)

    def predict(self, x):
        """Run the model."""
        return self.session.run(None, {self.name: x})[0]

    def encode_response(self, output):
        """Return what becomes JSON."""
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    port = int(os.environ["SERVED_PORT"])
    server.run(host="127.0.0.1", port=port, generate_client_file=False)
