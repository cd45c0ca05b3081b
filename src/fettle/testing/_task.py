"""The contract of a task: what training, measuring and the search rely on."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch

from fettle.core.arrays import SPLITS, Arrays, Batch, Split
from fettle.core.errors import ModelError
from fettle.tasks import Task

SEEDED = 7


def _rows(batches: list[Batch]) -> list[bytes]:
    """Return the contents of each row of inputs."""
    found = []
    for batch in batches:
        arrays = [np.ascontiguousarray(batch.inputs[name]) for name in sorted(batch.inputs)]
        found += [b"".join(a[i].tobytes() for a in arrays) for i in range(len(arrays[0]))]
    return found


class TaskContract(ABC):
    """What a task keeps, whatever it is for. Implement `task` and `outputs`.

    A task that needs the original's answers is given with them.
    """

    @abstractmethod
    def task(self) -> Task:
        """Return the task, made anew, with at least two examples in each split but `train`."""

    @abstractmethod
    def outputs(self, batch: Batch, good: bool) -> np.ndarray:
        """Return a model's first output for a batch: as good as can be, or a bad one."""

    def scores(self, task: Task, split: Split, good: bool, batch_size: int = 16) -> np.ndarray:
        """Return what each example of a split adds to the metric."""
        batches = task.batches(split, batch_size)
        found = [task.score({"output": self.outputs(batch, good)}, batch) for batch in batches]
        return task.contributions(np.concatenate(found), split)

    def test_splits_are_disjoint_and_as_large_as_they_say(self) -> None:
        """No content is in two splits, and `size` counts what `batches` yields."""
        task, seen = self.task(), set[bytes]()
        for split in SPLITS:
            batches = list(task.batches(split, 16))
            assert sum(map(len, batches)) == task.size(split)
            contents = set(_rows(batches))
            assert not contents & seen
            seen |= contents

    def test_the_order_of_a_split_is_fixed(self) -> None:
        """Neither the size of a batch nor another task of the same data changes it."""
        one, other = self.task(), self.task()
        for split in SPLITS:
            assert _rows(list(one.batches(split, 5))) == _rows(list(other.batches(split, 64)))

    def test_fingerprints_tell_splits_apart_and_repeat(self) -> None:
        """The same data has the same fingerprint, each split its own."""
        one, other = self.task(), self.task()
        found = [one.fingerprint(split) for split in SPLITS]
        assert found == [other.fingerprint(split) for split in SPLITS]
        assert len(set(found)) == len(SPLITS)

    def test_inputs_are_those_of_the_signature(self) -> None:
        """Examples have the names, types and shapes that the signature says, as many as asked."""
        task = self.task()
        for n in (1, 2, 3):
            inputs: Arrays = task.example_inputs(n)
            assert list(inputs) == [spec.name for spec in task.signature.inputs]
            for spec in task.signature.inputs:
                spec.check(inputs[spec.name])
                assert len(inputs[spec.name]) == n

    def test_an_epoch_depends_on_its_seed_and_number_alone(self) -> None:
        """Twice the same is the same; another epoch, seed or shard is not."""
        task = self.task()
        if not task.size("train"):
            pytest.skip("nothing to train with")
        first = _rows(list(task.epoch(SEEDED, 0, 4)))
        np.random.default_rng(0).random(3)
        torch.manual_seed(1)
        assert _rows(list(task.epoch(SEEDED, 0, 4))) == first
        assert _rows(list(task.epoch(SEEDED, 1, 4))) != first
        shards = [_rows(list(task.epoch(SEEDED, 0, 2, (rank, 2)))) for rank in (0, 1)]
        assert len(shards[0]) == len(shards[1])
        assert set(shards[0]) | set(shards[1]) <= set(_rows(list(task.epoch(SEEDED, 0, 1))))

    def test_each_example_has_a_finite_score(self) -> None:
        """One number an example, whatever the size of a batch; the metric is their mean."""
        task = self.task()
        for split in ("select", "test"):
            good, bad = (self.scores(task, split, kind) for kind in (True, False))
            assert good.shape == bad.shape == (task.size(split),)
            assert np.isfinite(good).all()
            assert np.isfinite(bad).all()
            assert good.mean() > bad.mean()
            np.testing.assert_allclose(self.scores(task, split, True, 3), good, atol=1e-9)

    def test_nan_is_never_good(self) -> None:
        """Outputs that are no numbers score no better than bad ones, and finitely."""
        task = self.task()
        batch = next(task.batches("select", 8))
        nan = np.full_like(self.outputs(batch, True), np.nan)
        worst = task.score({"output": nan}, batch)
        assert np.isfinite(worst).all()
        assert worst.mean() <= task.score({"output": self.outputs(batch, False)}, batch).mean()

    def test_outputs_of_another_shape_are_refused(self) -> None:
        """Neither broadcast nor cut: a ModelError."""
        task = self.task()
        batch = next(task.batches("select", 8))
        good = self.outputs(batch, True)
        with pytest.raises(ModelError, match="expected"):
            task.score({"output": good[:-1]}, batch)

    def test_the_loss_leads_to_good_outputs(self) -> None:
        """A scalar with a gradient, lower for good outputs than for bad ones."""
        task = self.task()
        batch = next(task.batches("select", 8))
        arrays = [self.outputs(batch, kind) for kind in (True, False)]
        found = [torch.tensor(array, requires_grad=True) for array in arrays]
        good, bad = (task.loss(outputs, batch) for outputs in found)
        assert good.shape == bad.shape == ()
        assert float(good.detach()) < float(bad.detach())
        bad.backward()  # type: ignore[no-untyped-call]
        gradient = found[1].grad
        assert gradient is not None
        assert bool(torch.isfinite(gradient).all())
        assert bool(torch.count_nonzero(gradient))
