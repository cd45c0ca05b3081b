from fettle.core.arrays import TensorSpec
from fettle.core.signature import Signature


def test_the_image_is_the_first_input_without_its_batch():
    spec = TensorSpec("input", "float32", (-1, 3, 32, 24))
    assert Signature((spec,), 10).image == (3, 32, 24)
