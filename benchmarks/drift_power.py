"""How often drift is seen on CIFAR-10, and how often it is seen where there is none.

The reference is 500 test images and what a bundle of ResNet-20 in INT8 makes of them. Windows are
drawn from the other test images: clean, corrupted at five strengths, or with one class more often.
Clean windows are also held against the bundle's own reference, which is of images that the network
was trained on. Each is judged as `fettle monitor` does: Kolmogorov–Smirnov for numbers,
chi-square for classes, MMD for scores, Holm's correction over all of a window's features.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from _results import record, table
from scipy import ndimage
from shadow_bound import INT8, bundle

from fettle import tasks
from fettle.core.bundle import Bundle
from fettle.core.shelf import DETECTORS, RUNTIMES
from fettle.measure import run_batch
from fettle.monitor.drift import DriftReport, Plan, Sample, compare
from fettle.monitor.drift.features import bundle_columns, columns_of

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))
STRENGTHS = range(1, 6)
SIZE, HELD = 200, 500  # images of a window, and of the reference
NUMBERS = ("kolmogorov_smirnov", "wasserstein", "psi", "jensen_shannon", "chi_square")
FAMILIES = {
    "inputs": "input/",
    "confidence": "confidence",
    "class": "class",
    "scores": "output/",
}
FEWER = 5  # so-manieth of the windows against a single reference
Columns = dict[str, np.ndarray]
Corruption = Callable[[np.ndarray, int], np.ndarray]
MEANING = (
    "Images are in units of the training set's deviation, about a quarter of the range. A window's",
    "alarms are Holm's over all its features; those of a family are the windows in which one of",
    "its features alarms. *Moved most* is the feature that most windows name first. With a",
    "reference of its own for each window, detectors keep their level; a single reference is lucky",
    "or not in each of its features, for all of its windows alike. The bundle's is of training",
    "images, of which the network is surer: what its answers alarm at there is true.",
)


def noise(images: np.ndarray, strength: int) -> np.ndarray:
    """Add Gaussian noise of 0.05 to 0.8."""
    random = np.random.default_rng(strength)
    sigma = 0.05 * 2 ** (strength - 1)
    return images + random.normal(0, sigma, images.shape).astype(np.float32)


def blur(images: np.ndarray, strength: int) -> np.ndarray:
    """Blur by 0.2 to 1 pixels."""
    return ndimage.gaussian_filter(images, (0, 0, 0.2 * strength, 0.2 * strength))


def brightness(images: np.ndarray, strength: int) -> np.ndarray:
    """Add 0.1 to 1.6."""
    return images + np.float32(0.1 * 2 ** (strength - 1))


def contrast(images: np.ndarray, strength: int) -> np.ndarray:
    """Shrink towards each image's mean, to 0.9 … 0.4 of it."""
    factor = np.float32((0.9, 0.8, 0.7, 0.55, 0.4)[strength - 1])
    mean = images.mean((1, 2, 3), keepdims=True)
    return (images - mean) * factor + mean


CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
}


def main() -> int:
    """Judge the windows, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clean", type=int, default=1000, help="windows without drift")
    parser.add_argument("--windows", type=int, default=50, help="of each strength")
    parser.add_argument("--images", type=int, default=1000, help="that are corrupted")
    parser.add_argument("--dry", action="store_true", help="print the tables, write none")
    options = parser.parse_args()
    if not (DATA / "cifar10").is_dir():
        print("skipped: FETTLE_DATA names no folder with cifar10/ and weights/", file=sys.stderr)
        return 0
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}")
    opened = Bundle.open(bundle(task, "resnet20", INT8))
    images, labels = _test(task)
    seen = Seen(opened)
    print("clean images …", file=sys.stderr)
    clean = seen.columns(images)
    given = bundle_columns(opened.reference(), opened.manifest.labels)
    held, rest = (_taken(clean, part) for part in (slice(HELD), slice(HELD, None)))
    parts = _clean_part((held, given), rest, options.clean)
    images, labels = images[HELD:], labels[HELD:]
    print("corrupted images …", file=sys.stderr)
    rows, curves = [], {}
    for name, strength, columns in _drifted(seen, images[: options.images], labels, rest):
        report = compare(held, _windows(columns, options.windows, strength))
        rows.append([name, str(strength), *_shares(report)])
        curves[name, strength] = columns["confidence"]
        print(*rows[-1], file=sys.stderr)
    head = ("drift", "strength", "windows that alarm", *FAMILIES, "moved most")
    parts += ["", f"Windows of {SIZE} that alarm, of {options.windows}:", "", *table(head, rows)]
    parts += ["", "Each detector on `confidence` alone, at 5 % without correction:", ""]
    parts += table(("drift", "strength", *NUMBERS), _by_detector(held, curves, options.windows))
    if options.dry:
        print("\n".join(parts))
        return 0
    record("drift-power", "Drift on CIFAR-10: false alarms and power", [*parts, "", *MEANING])
    return 0


class Seen:
    """A session of the bundle, which tells the columns of images."""

    def __init__(self, opened: Bundle) -> None:
        self._session = RUNTIMES.make("onnxruntime", threads=1).build(
            opened.model_path, opened.manifest.lowering.get("onnxruntime", ())
        )
        self._name = self._session.inputs[0].name
        self._labels = opened.manifest.labels

    def columns(self, images: np.ndarray) -> Columns:
        """Return the columns of images and of their answers."""
        pieces = []
        for start in range(0, len(images), 250):
            inputs = {self._name: np.ascontiguousarray(images[start : start + 250], np.float32)}
            pieces.append(columns_of(inputs, run_batch(self._session, inputs), self._labels))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _test(task: tasks.Task) -> tuple[np.ndarray, np.ndarray]:
    batches = [(next(iter(b.inputs.values())), b.targets) for b in task.batches("test", 500)]
    return tuple(np.concatenate([np.asarray(b[at]) for b in batches]) for at in (0, 1))


def _drifted(
    seen: Seen, images: np.ndarray, labels: np.ndarray, clean: Columns
) -> Iterator[tuple[str, int, Columns]]:
    for name, corrupt in CORRUPTIONS.items():
        for strength in STRENGTHS:
            yield name, strength, seen.columns(corrupt(images, strength))
    random = np.random.default_rng(0)
    one = np.flatnonzero(labels == 3)
    for strength, share in zip(STRENGTHS, (0.15, 0.2, 0.25, 0.3, 0.4), strict=True):
        extra = round(len(one) * 10 * (share - 0.1) / (1 - share))
        chosen = np.concatenate([np.arange(len(labels)), random.choice(one, extra)])
        yield f"label shift to {share:.0%}", strength, _taken(clean, chosen)


def _windows(columns: Columns, count: int, seed: int) -> Iterator[Sample]:
    random = np.random.default_rng(seed)
    n = len(columns["confidence"])
    for at in range(count):
        yield Sample(at, SIZE, _taken(columns, random.choice(n, SIZE, replace=False)))


def _taken(columns: Mapping[str, np.ndarray], chosen: np.ndarray | slice) -> Columns:
    return {name: values[chosen] for name, values in columns.items()}


def _shares(report: DriftReport) -> list[str]:
    """Return the share of windows that alarm: at all, and in each family; and what moved most."""
    windows = report.to_json()["windows"]
    firsts = [window["moved"][0] for window in windows if window["moved"]]
    alarms = [
        {name for name, judged in found.items() if judged.alarm} for _, _, found in report.windows
    ]
    families = [
        np.mean([any(name.startswith(prefix) for name in each) for each in alarms])
        for prefix in FAMILIES.values()
    ]
    most = max(set(firsts), key=firsts.count) if firsts else "–"
    return [*(f"{share:.0%}" for share in (np.mean([bool(a) for a in alarms]), *families)), most]


def _clean_part(references: Sequence[Columns], clean: Columns, count: int) -> list[str]:
    """Return false alarms: against a reference for each window, and against single ones."""
    print("clean windows …", file=sys.stderr)
    few = max(1, count // FEWER)
    single = [compare(each, _windows(clean, few, 1)).windows for each in references]
    random, plan = np.random.default_rng(2), Plan()
    own = []
    for _ in range(count):
        chosen = random.choice(len(clean["confidence"]), HELD + SIZE, replace=False)
        window = Sample(0, SIZE, _taken(clean, chosen[HELD:]))
        own += compare(_taken(clean, chosen[:HELD]), [window], plan).windows
    rows = []
    for name in [*own[0][2], ""]:
        shares = [
            np.mean([_alarms(found, name, plan.alpha) for _, _, found in windows])
            for windows in (own, *single)
        ]
        rows.append([name or "**any, corrected**", *(f"{share:.1%}" for share in shares)])
    head = (
        "feature",
        f"a reference of {HELD} for each of {count} windows",
        f"one such reference, {few} windows",
        f"the bundle's, of {len(references[1]['confidence'])}, {few} windows",
    )
    intro = f"False alarms of clean windows of {SIZE} images, at 5 %:"
    return [intro, "", *table(head, rows)]


def _alarms(found: Mapping[str, object], name: str, alpha: float) -> bool:
    if not name:
        return any(judged.alarm for judged in found.values())
    return name in found and found[name].score.p <= alpha


def _by_detector(
    reference: Columns, curves: Mapping[tuple[str, int], np.ndarray], count: int
) -> list[list[str]]:
    fitted = {
        name: DETECTORS.make(f"drift.{name}").fit(reference["confidence"]) for name in NUMBERS
    }
    rows = []
    for (name, strength), values in curves.items():
        random = np.random.default_rng(strength)
        drawn = [random.choice(values, SIZE, replace=False) for _ in range(count)]
        shares = [np.mean([f.score(each).p <= 0.05 for each in drawn]) for f in fitted.values()]
        rows.append([name, str(strength), *(f"{share:.0%}" for share in shares)])
    return rows


if __name__ == "__main__":
    sys.exit(main())
