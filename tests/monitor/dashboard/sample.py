"""States of the dashboard to look at: a log that a server might have written, and what others say.

python tests/monitor/dashboard/sample.py FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from fettle.monitor._schema import open_to_write
from fettle.monitor.ab import Plan
from fettle.monitor.cost import Prices
from fettle.monitor.dashboard import Wanted, gather, page
from fettle.monitor.log import open_log

START = 1_790_000_000
MINUTES, EACH = 40, 200
MINE, ORIGINAL, OTHER = "3f" * 8, "a1" * 8, "c4" * 8
PRICES = Prices("EUR", 0.042, {"served": 1, "original": 1}, 6.5, {}, 380)
_ROW = """INSERT INTO predictions (row, time, origin, id, key, error, batch, queue_us, compute_us,
    total_us, top, confidence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def write(path: Path, trouble: bool = False, minutes: int = MINUTES) -> Path:
    """Write a log of an A/B test with a shadow; in `trouble`, B is slow, fails, and disagrees."""
    rng = np.random.default_rng(0)
    origins: dict[tuple, int] = {}
    rows, labels = [], []
    for minute in range(minutes):
        if minute == 17:  # the server was restarted
            continue
        load = 1 + 0.5 * np.sin(minute / 6)
        late = trouble and minute >= minutes // 2
        for at in range(int(EACH * load)):
            arm = int(rng.random() < 0.5)
            bad = late and arm == 1
            time = (START + 60 * minute) * 10**9 + int(6e10 * at / (EACH * load + 1))
            name = f"r{minute}-{at}"
            failed = rng.random() < (0.12 if bad else 0.001)
            compute = int(rng.gamma(30, (14 if bad else 6) * (1 + 0.4 * (load - 1))))
            wait = int(rng.gamma(2, 40 * load))
            right = rng.random() < (0.80 if bad else 0.93)
            top = None if failed else int(rng.integers(10))
            status = ("Late" if rng.random() < 0.6 else "Broken") if failed else "ok"
            origin = ("digits", "1", (MINE, OTHER)[arm], "ab"[arm], "rest", status)
            number = origins.setdefault(origin, len(origins) + 1)
            told = "the deadline of 250 ms passed" if status == "Late" else "the engine failed"
            rows.append((len(rows), time, number, name, f"c{minute}-{at}", told if failed else "",
                         2, wait, compute, wait + compute + 120, top, 0.9))  # fmt: skip
            if top is not None:
                labels.append((name, top if right else (top + 1) % 10, time))
            if top is not None and rng.random() < 0.2:
                differs = rng.random() < (0.25 if bad else 0.015)
                origin = ("digits", "1", ORIGINAL, "shadow", "rest", "ok")
                number = origins.setdefault(origin, len(origins) + 1)
                taken = int(rng.gamma(30, 11))
                rows.append((len(rows), time, number, name, "", "", 1, 0, taken, taken,
                             (top + differs) % 10, 0.9))  # fmt: skip
    database = open_to_write(path)
    database.execute("BEGIN")
    database.executemany(_ROW, rows)
    database.executemany("INSERT INTO labels VALUES (?, ?, ?)", labels)
    database.executemany(
        "INSERT INTO origins VALUES (?, ?, ?, ?, ?, ?, ?)", [(n, *o) for o, n in origins.items()]
    )
    database.execute("COMMIT")
    database.close()
    return path


def manifest(p50: float = 0.19, p95: float = 0.25, p99: float = 0.30) -> SimpleNamespace:
    """A promise, as a checklist leaves it."""
    sizes = {"2": {"p50": p50, "p95": p95, "p99": p99}}
    return SimpleNamespace(checks=[{"name": "latency", "sizes": sizes}])


def drift(trouble: bool = False) -> dict:
    """What the detectors say."""
    rng = np.random.default_rng(1)
    features = []
    for at in range(16):
        moved = trouble and at in (2, 5)
        scores = np.abs(rng.normal(0.05, 0.02, MINUTES)) + moved * np.linspace(0, 0.5, MINUTES) ** 2
        windows = [
            {"start": START + 60 * minute, "score": float(score), "threshold": 0.1,
             "alarm": bool(score > 0.15)}
            for minute, score in enumerate(scores)
        ]  # fmt: skip
        features.append({"name": f"pixel mean, row {at}", "detector": "psi", "windows": windows})
    return {"drifted": trouble, "features": features}


ALERTS = {
    "rules": 3,
    "firing": [],
    "history": [
        {"name": "p99-high", "summary": "p99 of digits is above 20 ms", "severity": "ticket",
         "started": START + 600, "ended": START + 900},
    ],
}  # fmt: skip
FIRING = {
    "rules": 3,
    "firing": [
        {"name": "failing", "summary": "5.9 % of requests to digits <b> fail", "severity": "page",
         "started": START + 1300},
    ],
    "history": [
        {"name": "failing", "summary": "5.9 % of requests to digits <b> fail", "severity": "page",
         "started": START + 1300, "ended": None},
        *ALERTS["history"],
    ],
}  # fmt: skip
TRIAGE = {
    "cause": "quantization drift",
    "reason": "Only the disagreement with the original moves: the bundle is damaged",
    "action": "roll back",
}


def state(folder: Path, trouble: bool = False) -> dict:
    """The whole state: healthy, or in trouble."""
    path = write(folder / f"{'trouble' if trouble else 'healthy'}.db", trouble)
    known = {"drift": drift(trouble), "alerts": FIRING if trouble else ALERTS}
    if trouble:
        known["triage"] = TRIAGE
    wanted = Wanted(
        manifest=manifest(),
        plan=Plan(share=0.5, margin=0.03),
        prices=PRICES,
        known=known,
        clock=lambda: START + 60 * MINUTES,
    )
    with open_log(path) as log:
        return gather(log, wanted)


def empty_state(folder: Path) -> dict:
    """The state of a server that nobody asked yet."""
    path = folder / "empty.db"
    open_to_write(path).close()
    with open_log(path) as log:
        return gather(log)


def states(folder: Path) -> dict[str, dict]:
    """All of them, by name."""
    return {"healthy": state(folder), "trouble": state(folder, True), "empty": empty_state(folder)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, found in states(Path(scratch)).items():
            Path(sys.argv[1], f"{name}.html").write_text(page(found), "utf-8")
