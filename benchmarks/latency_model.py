"""The latency model against the truth: networks of many widths and depths, timed and foretold.

Each network is foretold from the others of its engine, batch and precision: its own time is left
out of the calibration. Beside it, what three observed networks (the smallest, the middle and the
largest) say of the rest, which is what a search has to live on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import perf_counter

import numpy as np
from _results import record, table

from fettle import measure, tasks
from fettle.core.arrays import Arrays, repeat_to
from fettle.core.context import Context
from fettle.core.errors import FettleError
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.measure.lowering import choose_lowering
from fettle.runtimes import Runtime
from fettle.search._calibration import fit
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.search.latency_model import LatencyModel
from fettle.search.workshop import Source, Workshop

HERE = Path(__file__).resolve().parent
CIFAR, IMAGES = "noise:3x32x32:10", "noise:3x224x224"
WIDTHS = ("", "x0.75", "x0.5")
NETWORKS = [f"cifar:resnet{d}{w}" for d in (8, 14, 20, 32, 56) for w in WIDTHS]
PRUNED = ("prune.channels(ratio=0.3, epochs=0)", "prune.channels(ratio=0.6, epochs=0)")
MOBILE = f"{HERE}/_networks.py:mobilenet_v2"
PRECISIONS = {"f32": "", "int8": "quantize.static(samples=32)"}


@dataclass(frozen=True)
class Variant:
    """One network in one form: its name, its file, and what it takes in truth."""

    name: str
    path: Path
    ms: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where networks are compared: an engine, a batch and a precision."""

    engine: str
    batch: int
    precision: str

    def cells(self) -> list[str]:
        """Return the first cells of its rows."""
        return [self.engine, str(self.batch), self.precision]


def main() -> None:
    """Make every network, time it, foretell it, write the tables."""
    options = arguments()
    rows, summaries = [], []
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder), options.mobile)
        for engine in options.engines.split(","):
            for batch in map(int, options.batches.split(",")):
                for precision in PRECISIONS:
                    found = compared(Place(engine, batch, precision), shop, options)
                    rows += found[0]
                    summaries.append(found[1])
    head = ("engine", "batch", "precision", "networks", "left out: median off", "90 %",
            "from three: median off", "90 %", "order (Spearman)", "kernels",
            "s to measure them", "s to foretell the next")  # fmt: skip
    each = ("engine", "batch", "precision", "network", "truth ms", "foretold ms", "off")
    record("latency-model", "The latency model: foretold and measured, one thread",
           [*table(head, summaries), "", *table(each, rows)])  # fmt: skip


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", default="onnxruntime,openvino", help="by comma")
    parser.add_argument("--batches", default="1,64", help="by comma")
    parser.add_argument("--seconds", type=float, default=2.0, help="to time each network")
    parser.add_argument("--few", type=int, default=0, help="take every so manieth network only")
    parser.add_argument("--mobile", type=int, default=1, help="1 adds MobileNetV2, pruned and not")
    return parser.parse_args()


class Shop:
    """Makes the networks, each once."""

    def __init__(self, folder: Path, mobile: int) -> None:
        self.folder, self.mobile = folder, mobile
        self.store = Store(folder, Journal(folder / "journal.jsonl"))
        self.tasks = {data: tasks.load(data) for data in (CIFAR, IMAGES)}

    def variants(self, precision: str, few: int) -> dict[str, list[Variant]]:
        """Return the networks by the data that they take."""
        plans = [(name, "") for name in NETWORKS]
        plans += [(f"cifar:resnet{d}", step) for d in (20, 56) for step in PRUNED]
        found = {CIFAR: self._made(plans[:: few or 1], CIFAR, precision)}
        if self.mobile:
            mobile = [(MOBILE, step) for step in ("", *PRUNED)]
            found[IMAGES] = self._made(mobile, IMAGES, precision)
        return found

    def inputs(self, data: str, batch: int) -> Arrays:
        """Return one batch."""
        return repeat_to(self.tasks[data].example_inputs(batch), batch)

    def _made(self, plans: Sequence[tuple[str, str]], data: str, precision: str) -> list[Variant]:
        found = []
        for spec, step in plans:
            workshop = Workshop(Source(spec), self.tasks[data], self.store, Context())
            line = " > ".join(s for s in (step, PRECISIONS[precision]) if s)
            try:
                path = workshop.make(Recipe.parse(line)).path
            except FettleError as error:
                print(f"{spec} {line}: {error}")
                continue
            found.append(Variant(f"{spec.rpartition(':')[2]} {step}".strip(), path))
        return found


def compared(
    place: Place, shop: Shop, options: argparse.Namespace
) -> tuple[list[list[str]], list[str]]:
    """Return a row for each network, and one for all of them."""
    runtime = RUNTIMES.make(place.engine, threads=1)
    batches = {CIFAR: place.batch, IMAGES: min(place.batch, 8)}
    truths, guesses, rows, seconds, kernels = [], [], [], [0.0, 0.0], 0
    few = []
    for data, variants in shop.variants(place.precision, options.few).items():
        inputs = shop.inputs(data, batches[data])
        lowering = lowering_for(variants[0], runtime, inputs) if place.precision == "int8" else ()
        timed = [timed_alone(v, runtime, inputs, lowering, options.seconds) for v in variants]
        with tempfile.TemporaryDirectory() as cache:
            model = LatencyModel(runtime, inputs, lowering, Path(cache))
            started = perf_counter()
            for variant in timed:
                model.predict(variant.path)
            middle = perf_counter()
            found = [left_out(model, timed, v) for v in timed]
            seconds[0] += middle - started
            seconds[1] += (perf_counter() - middle) / len(timed)
            kernels += len(model.table)
            if len(timed) > 3:
                few += from_three(model, timed)
        truths += [v.ms for v in timed]
        guesses += found
        rows += [
            [*place.cells(), v.name, f"{v.ms:.3f}", f"{g:.3f}", f"{g / v.ms - 1:+.1%}"]
            for v, g in zip(timed, found, strict=True)
        ]
    off = np.abs(np.asarray(guesses) / np.asarray(truths) - 1)
    cells = [f"{np.median(off):.1%}", f"{np.percentile(off, 90):.1%}",
             f"{np.median(few):.1%}", f"{np.percentile(few, 90):.1%}"]  # fmt: skip
    order = f"{spearman(truths, guesses):.3f}"
    print(*place.cells(), *cells, order)
    return rows, [*place.cells(), str(len(truths)), *cells, order, str(kernels),
                  f"{seconds[0]:.1f}", f"{seconds[1]:.2f}"]  # fmt: skip


def lowering_for(variant: Variant, runtime: Runtime, inputs: Arrays) -> tuple[str, ...]:
    """Return what helps the first network, without what names its own layers."""
    chosen, _ = choose_lowering(variant.path, runtime, inputs)
    return tuple(step for step in chosen if "(" not in step)


def timed_alone(
    variant: Variant, runtime: Runtime, inputs: Arrays, lowering: Sequence[str], seconds: float
) -> Variant:
    """Return the network with its median latency."""

    def rebuild() -> partial:
        return partial(measure.run_batch, runtime.build(variant.path, lowering), inputs)

    subject = measure.Subject(variant.name, rebuild(), rebuild=rebuild)
    samples = measure.time_interleaved([subject], measure.Plan.for_budget(seconds))
    return Variant(variant.name, variant.path, measure.median_latency(samples[variant.name]).value)


def left_out(model: LatencyModel, timed: Sequence[Variant], wanted: Variant) -> float:
    """Return what the others say of one network."""
    return calibrated(model, [v for v in timed if v is not wanted], [wanted])[0]


def from_three(model: LatencyModel, timed: Sequence[Variant]) -> list[float]:
    """Return how far off, relatively, the smallest, middle and largest say of all others."""
    by_size = sorted(timed, key=lambda v: v.ms)
    three = [by_size[0], by_size[len(by_size) // 2], by_size[-1]]
    rest = [v for v in timed if v not in three]
    return [
        abs(guess / v.ms - 1) for guess, v in zip(calibrated(model, three, rest), rest, strict=True)
    ]


def calibrated(
    model: LatencyModel, known: Sequence[Variant], wanted: Sequence[Variant]
) -> list[float]:
    """Return what `known` says of `wanted`; `model` itself has observed nothing."""
    parts = [_parts(model, variant.path) for variant in known]
    fitted = fit(parts, [variant.ms for variant in known])
    return [fitted(_parts(model, variant.path)) for variant in wanted]


@cache
def _parts(model: LatencyModel, path: Path) -> float:
    return model.predict(path).ms


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the correlation of ranks."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
