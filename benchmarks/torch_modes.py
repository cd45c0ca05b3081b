"""Every way of running a torch module against plain eager f32, interleaved.

    python benchmarks/torch_modes.py [--seconds S] [--threads 1,2] [--only WAY,…] [MODEL …]

`first` is the first call, in which what is compiled is compiled (kept in torch's own cache from
one run of this script to the next). A way that can't run a network says why, and the others go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from _networks import mobilenet_v3_small, resnet18
from _results import interval, record, table
from _sequences import FEATURES, STEPS, TOKENS, WORDS, Encoder, LstmClassifier
from torch import nn

from fettle import measure
from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError
from fettle.core.shelf import RUNTIMES
from fettle.measure import ratio
from fettle.runtimes import Runtime, Session

RANDOM = np.random.default_rng(0)
EAGER = "eager"
WAYS: dict[str, dict[str, str]] = {
    EAGER: {},
    "channels_last": {"layout": "channels_last"},
    "bf16": {"precision": "bf16"},
    "compiled": {"mode": "compiled"},
    "compiled channels_last": {"mode": "compiled", "layout": "channels_last"},
    "compiled bf16": {"mode": "compiled", "precision": "bf16"},
    "aot": {"mode": "aot"},
    "aot bf16": {"mode": "aot", "precision": "bf16"},
}
HEAD = ("network", "threads", "way", "p50 ms", "p90", "× eager", "noise floor", "error", "first s")


def image() -> np.ndarray:
    """Return one random image."""
    return RANDOM.standard_normal((1, 3, 224, 224), dtype=np.float32)


def bert() -> nn.Module:
    """Return a BERT of 4 layers of 256."""
    torch.manual_seed(0)
    return Encoder(4, 256).eval()


def lstm() -> nn.Module:
    """Return the LSTM classifier."""
    torch.manual_seed(0)
    return LstmClassifier().eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], np.ndarray]]] = {
    "resnet18": (resnet18, image),
    "mobilenet_v3_small": (mobilenet_v3_small, image),
    "bert": (bert, lambda: RANDOM.integers(0, WORDS, (1, TOKENS))),
    "lstm": (lstm, lambda: RANDOM.standard_normal((1, STEPS, FEATURES), dtype=np.float32)),
}


def main() -> None:
    """Time each network at each number of threads, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=30.0, help="for one network and threads")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--only", default=",".join(WAYS), help="ways, besides eager")
    args = parser.parse_args()
    ways = [EAGER, *(way for way in WAYS if way in args.only.split(",") and way != EAGER)]
    rows, refused = [], []
    for name in args.models:
        for threads in map(int, args.threads.split(",")):
            rows += measured(name, threads, ways, args.seconds, refused)
    record("torch-modes", "Ways of running a torch module, batch 1", [*table(HEAD, rows), *refused])


def measured(
    name: str, threads: int, ways: list[str], seconds: float, refused: list[str]
) -> list[list[str]]:
    """Return the rows of one network; note in `refused` what couldn't run."""
    build, example = MODELS[name]
    module, inputs = build(), {"input": example()}
    sessions, first = {}, {}
    for way in ways:
        print(f"{name}, {threads} threads: {way}", file=sys.stderr)
        try:
            sessions[way], first[way] = opened(module, inputs, threads, WAYS[way])
        except FettleError as error:
            refused += ["", f"{name}, {threads} threads, {way}: {error}"]
    subjects = [
        measure.Subject(way, lambda s=session: s.run(inputs), 1, threads)
        for way, session in sessions.items()
    ]
    plain = subjects[0]
    samples = measure.time_interleaved([*subjects, measure.twin_of(plain)], measure.Plan(seconds))
    noise = measure.noise_in(samples, EAGER).to_json()
    return [
        [
            name,
            str(threads),
            way,
            *(f"{measure.summary(samples[way])[p]:.2f}" for p in ("p50", "p90")),
            "1" if way == EAGER else interval(ratio(samples[EAGER], samples[way]).to_json()),
            interval(noise),
            f"{error_of(session, sessions[EAGER], inputs):.1e}",
            f"{first[way]:.1f}",
        ]
        for way, session in sessions.items()
    ]  # fmt: skip


def opened(
    module: nn.Module, inputs: Arrays, threads: int, knobs: dict[str, str]
) -> tuple[Session, float]:
    """Return a session that has run once, and the seconds of building and running it."""
    runtime = RUNTIMES.make("pytorch", threads=threads, **knobs)
    assert isinstance(runtime, Runtime)
    start = perf_counter()
    session = runtime.build(module)
    session.run(inputs)
    return session, perf_counter() - start


def error_of(session: Session, plain: Session, inputs: Arrays) -> float:
    """Return the largest difference from eager, of the largest logit."""
    found, expected = (next(iter(s.run(inputs).values())) for s in (session, plain))
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
