"""What a shadow knows of accuracy without labels, held against what the labels say.

`fettle serve` answers all 10,000 test images of CIFAR-10, a request each, and another bundle
answers each again as its shadow. After some hundreds of requests the server is asked what it knows:
how often both name another class, and by how much their accuracies differ at most. The labels,
which it gets as feedback when all is over, say by how much they do. A bound that may be looked at
any time has to hold in whatever order the images come: that is counted over shuffles of the same
answers, with a look after every hundredth image.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from _results import record, table
from _serving_processes import Process, free_port, running

from fettle import compress, tasks
from fettle.core.bundle import is_bundle
from fettle.core.context import Context
from fettle.core.progress import reporter
from fettle.core.recipe import Recipe
from fettle.monitor.log import open_log
from fettle.monitor.sequential import proportion
from fettle.search.study import Setting
from fettle.search.workshop import Source

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))
RUNS = ROOT / "runs" / "shadow-bound"
PROGRAM = str(Path(sys.executable).with_name("fettle"))
INT8, FLOAT = "quantize.static @ onnxruntime", "@ onnxruntime"
PAIRS = (
    (("resnet20", INT8), ("resnet20", FLOAT)),
    (("resnet20", INT8), ("resnet56", FLOAT)),
)
LOOKS = (100, 300, 1000, 3000, 10_000)
ALPHA = 0.05
MEANING = (
    "*They do* is the shadow's accuracy less that of what answers, by the labels, which the",
    "server got only after its last look. The bound counts every disagreement as a loss: those",
    "that cancel make it wide, and without labels nobody can know which do. An order is drawn",
    "from these images without replacement, so that intervals miss more rarely than the 5 % that",
    "they are allowed.",
)
_AT_ONCE = 50  # fewer than wait for a shadow, so that it misses none


@dataclass(frozen=True)
class Answers:
    """What two bundles said of the same images, in the order of the requests.

    Attributes:
        told: what the server knew after so many requests.
        top: the classes they named, shape (n, 2): of what answered, and of the shadow.
        labels: shape (n,).
    """

    told: dict[int, dict]
    top: np.ndarray
    labels: np.ndarray

    @property
    def differ(self) -> np.ndarray:
        """Where they name different classes, shape (n,)."""
        return self.top[:, 0] != self.top[:, 1]

    @property
    def accuracies(self) -> np.ndarray:
        """The share of right answers of both, shape (2,)."""
        return (self.top == self.labels[:, None]).mean(0)


def main() -> int:
    """Ask each pair, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="of the test split")
    parser.add_argument("--orders", type=int, default=200, help="shuffles of the answers")
    options = parser.parse_args()
    if not (DATA / "cifar10").is_dir():
        print("skipped: FETTLE_DATA names no folder with cifar10/ and weights/", file=sys.stderr)
        return 0
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}")
    looks, shuffles = [], []
    for served, shadow in PAIRS:
        title = f"{_named(served)} beside {_named(shadow)}"
        print(f"{title} …", file=sys.stderr)
        found = asked(bundle(task, *served), bundle(task, *shadow), task, options.images)
        looks += [[title, *cells] for cells in looked(found)]
        shuffles.append([title, *shuffled(found, options.orders)])
    parts = [
        *table(("answers, shadow", "requests", "they differ", "accuracies differ at most (95 %)",
                "they do, of these", "they do, of all"), looks),
        "",
        f"In {options.orders} shuffled orders, looking after every hundredth image:",
        "",
        *table(("answers, shadow", "top-1 of both", "accuracies differ by",
                "orders in which the bound ever was too low",
                "orders in which the interval ever missed the share that differs"), shuffles),
    ]  # fmt: skip
    parts += ["", *MEANING]
    record("shadow-bound", "What a shadow knows of accuracy without labels: CIFAR-10", parts)
    return 0


def bundle(task: tasks.Task, network: str, recipe: str) -> Path:
    """Return the proven bundle of a recipe, which is made where it isn't there."""
    name = f"{network}-{'int8' if recipe == INT8 else 'float'}"
    best = RUNS / name / "best"
    if not is_bundle(best):
        weights = str(DATA / "weights" / f"cifar10_{network}.safetensors")
        setting = Setting(target=("onnxruntime",), batch=1, seconds=5, only_given=True)
        context = Context(progress=reporter())
        source = Source(f"cifar:{network}", weights)
        compress(source, task, Recipe.parse(recipe), RUNS / name, setting, context)
    return best


def asked(served: Path, shadow: Path, task: tasks.Task, count: int) -> Answers:
    """Ask a server for `count` test images, and return what it and its log say."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, port = Path(scratch), free_port()
        command = [PROGRAM, "serve", f"m={served}", "--port", str(port), "--shadow", str(shadow),
                   "--shadow-sample", "1", "--shadow-busy", "1", "--threads", "1",
                   "--no-access-log", "--log", str(folder / "p.db")]  # fmt: skip
        with running(command, port, folder / "said", where=folder) as server:
            server.wait("/v2/health/ready")
            told = _sent(server, task, count)
        return Answers(told, *_logged(folder / "p.db", count))


def _sent(server: Process, task: tasks.Task, count: int) -> dict[int, dict]:
    """Send images, then their labels; return what the server knew at each look."""
    told, labels, number = {}, [], 0
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    (name,) = [each["name"] for each in client.get_model_metadata("m")["inputs"]]
    for batch in task.batches("test", _AT_ONCE):
        (images,), classes = batch.inputs.values(), np.asarray(batch.targets)
        for image, label in zip(images[: count - number], classes, strict=False):
            tensor = triton.InferInput(name, [1, *image.shape], "FP32")
            tensor.set_data_from_numpy(np.ascontiguousarray(image[None], np.float32))
            client.infer("m", [tensor], request_id=f"r{number}")
            labels.append({"id": f"r{number}", "label": int(label)})
            number += 1
        status = _caught_up(server, number)
        if number in LOOKS or number == count:
            told[number] = status["compared"][0]
        if number == count:
            break
    for start in range(0, count, 10_000):
        _post(server, "/v2/models/m/feedback", {"labels": labels[start : start + 10_000]})
    client.close()
    return told


def _caught_up(server: Process, count: int) -> dict:
    while True:
        with urllib.request.urlopen(server.url + "/v2/rollout", timeout=30) as answer:
            status = json.load(answer)["shadow"]
        if status["done"] == count:
            return status
        assert not status["dropped"], "the shadow missed some"
        time.sleep(0.02)


def _post(server: Process, path: str, document: dict) -> None:
    body = json.dumps(document).encode()
    with urllib.request.urlopen(server.url + path, body, timeout=60) as answer:
        answer.read()


def _logged(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes that both named, and the labels, from the log alone."""
    tops, labels = np.full((count, 2), -1), np.full(count, -1)
    with open_log(path) as log:
        for row in log.rows():
            number, shadow = int(row.id[1:]), row.route == "shadow"
            tops[number, int(shadow)], labels[number] = row.top, row.label
            if shadow:
                assert row.agreement == float(tops[number, 0] == tops[number, 1])
    assert (tops >= 0).all() and (labels >= 0).all(), "the log doesn't hold all"  # noqa: PT018
    return tops, labels


def looked(found: Answers) -> list[list[str]]:
    """Return a row for each look of the server."""
    right = found.top == found.labels[:, None]
    whole = right.mean(0)
    rows = []
    for n, told in found.told.items():
        known, now = told["disagreement"], right[:n].mean(0)
        assert abs(known["estimate"] - found.differ[:n].mean()) < 1e-9  # the log and the server
        rows.append([
            f"{n:,}",
            f"{known['estimate']:.2%} [{known['low']:.2%}, {known['high']:.2%}]",
            f"{told['accuracy_loss_at_most']:.2%}",
            f"{now[1] - now[0]:+.2%}",
            f"{whole[1] - whole[0]:+.2%}",
        ])  # fmt: skip
    return rows


def shuffled(found: Answers, orders: int) -> list[str]:
    """Return what came of looking at the answers in other orders."""
    generator = np.random.default_rng(0)
    accuracies, differ = found.accuracies, found.differ
    apart, share = abs(accuracies[0] - accuracies[1]), differ.mean()
    low = missed = 0
    for _ in range(orders):
        hits = np.cumsum(generator.permutation(differ))
        seen = [proportion(float(hits[n - 1]), n, ALPHA) for n in range(100, len(differ) + 1, 100)]
        low += any(each.high < apart for each in seen)
        missed += any(not each.low <= share <= each.high for each in seen)
    return [
        f"{accuracies[0]:.2%}, {accuracies[1]:.2%}",
        f"{apart:.2%}",
        f"{low} of {orders}",
        f"{missed} of {orders}",
    ]


def _named(pair: tuple[str, str]) -> str:
    network, recipe = pair
    return f"{network} {'INT8' if recipe == INT8 else 'FP32'}"


if __name__ == "__main__":
    sys.exit(main())
