"""What the detectors report is what the dashboard draws."""

import json

import numpy as np

from fettle.monitor.dashboard._drift import strips
from fettle.monitor.drift import Sample, compare


def test_a_report_of_the_detectors_is_drawn_as_it_is():
    rng = np.random.default_rng(0)
    windows = [
        Sample(60.0 * at, 200, {"x": rng.normal(3.0 * (at > 2), 1, 200), "y": rng.random(200)})
        for at in range(6)
    ]
    reference = {"x": rng.normal(size=500), "y": rng.random(500)}
    report = json.loads(json.dumps(compare(reference, windows).to_json(), allow_nan=False))
    first, second = strips(report)
    assert (first.name, first.alarms, second.alarms) == ("x", 3, 0)
    assert [heat.level >= 3 for heat in first.heats] == [False] * 3 + [True] * 3
    assert "kolmogorov_smirnov" in first.detector
