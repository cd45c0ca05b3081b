"""Your own network and your own data, without writing a plug-in.

fettle train    --model examples/own_model.py:net --data examples/own_model.py:data \
        --epochs 15 --optimizer adamw --lr 0.002 --out runs/own
fettle compress --model runs/own/model --data examples/own_model.py:data \
        -t quantize.static --max-drop 0.03 --batch 64 --out runs/own-int8
"""

import numpy as np
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset


class Digits(Dataset):
    """A map-style data set: a length, and `(x, y)` by index."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


class Net(nn.Module):
    """Two convolutions and a linear layer, as in many a first project."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) for images (n, 1, 8, 8)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def net(classes: int = 10) -> nn.Module:
    """Return the untrained network; fettle hands over the number of classes."""
    return Net(classes)


def data() -> tuple[Digits, Digits]:
    """Return (train, test); fettle carves `calibrate` and `select` out of train."""
    raw = load_digits()
    images = (raw.images[:, None] / 16).astype(np.float32)
    return Digits(images[:1200], raw.target[:1200]), Digits(images[1200:], raw.target[1200:])
