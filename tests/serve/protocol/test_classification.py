"""The highest classes, held against a plain sort."""

import numpy as np

from fettle.serve.protocol.classification import classify


def test_the_order_is_that_of_a_plain_sort():
    scores = np.random.default_rng(0).integers(0, 5, (20, 9)).astype(np.float32)  # many equals
    found = classify(scores, 4)
    for row, texts in zip(scores, found, strict=True):
        plain = sorted(range(9), key=lambda index: (-row[index], index))[:4]
        assert [int(text.split(":")[1]) for text in texts] == plain
        assert [float(text.split(":")[0]) for text in texts] == [row[index] for index in plain]


def test_more_classes_than_there_are_gives_all():
    assert classify(np.eye(3, dtype=np.float32), 10).shape == (3, 3)


def test_labels_may_name_only_some():
    texts = classify(np.array([[1, 2, 3]]), 3, ["zero", "one"])
    assert texts.tolist() == [["3.000000:2", "2.000000:1:one", "1.000000:0:zero"]]


def test_further_dimensions_are_classes_too():
    scores = np.arange(8, dtype=np.float64).reshape(2, 2, 2)
    assert classify(scores, 1).tolist() == [["3.000000:3"], ["7.000000:3"]]
