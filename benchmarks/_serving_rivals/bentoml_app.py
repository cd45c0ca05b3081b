"""BentoML as its documentation begins: a service with one worker and one API."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1)
class Served:
    """One ONNX model."""

    def __init__(self):
        self.session = ort.InferenceSession(os.environ["SERVED_MODEL"])
        self.name = self.session.get_inputs()[0].name

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Run the model."""
        return self.session.run(None, {self.name: x.astype(np.float32)})[0]
