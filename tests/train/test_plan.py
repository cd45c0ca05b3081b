import pytest
import torch

from fettle.core.errors import KnobError
from fettle.train import FitPlan


@pytest.mark.parametrize(("warmup", "floor"), [(0.0, 0.0), (0.2, 0.01), (0.5, 0.3)])
def test_schedule_equals_torchs(warmup, floor):
    plan, total, peak = FitPlan(warmup=warmup, floor=floor, lr=0.4), 40, 0.4
    warm = round(warmup * total)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    parts = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warm, eta_min=floor * peak)
    ]
    if warm:
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warm + 1), total_iters=warm)
        parts.insert(0, rise)
    marks = [warm] if warm else []
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, marks)
    for step in range(total):
        expected = optimizer.param_groups[0]["lr"]
        assert plan.lr * plan.lr_factor(step, total) == pytest.approx(expected, rel=1e-6), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    "knobs",
    [{"epochs": -1}, {"lr": 0}, {"lr": float("nan")}, {"precision": "16"}, {"optimizer": "lion"}],
)
def test_refuses_what_is_out_of_bounds(knobs):
    with pytest.raises(KnobError, match=next(iter(knobs))):
        FitPlan(**knobs)


def test_every_knob_says_what_it_means():
    assert all(knob.meaning and knob.bounds for knob in FitPlan.knobs())
    assert set(FitPlan().values()) == {knob.name for knob in FitPlan.knobs()}
