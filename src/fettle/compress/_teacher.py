"""The teacher: frozen, one model or several, and asked once about what it has answered before."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from fettle.compress._folded import folded
from fettle.core.arrays import Batch, repeat_to
from fettle.core.hashing import array_fingerprint, fingerprint
from fettle.tasks import Task

_MOST_BYTES = 2**28
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
Answers = dict[bytes, Tensor]


@dataclass
class Memory:
    """What a teacher has answered: by example where nothing changes it, else by batch.

    `examples` is None until the first question; `quick` is the teacher made faster to ask, if it
    could be.
    """

    examples: Answers | None = None
    batches: Answers = field(default_factory=dict)
    quick: nn.Module | None = None
    prepared: bool = False


_COPIES: WeakKeyDictionary[nn.Module, tuple[str, nn.Module]] = WeakKeyDictionary()
_MEMORIES: WeakKeyDictionary[nn.Module, dict[str, Memory]] = WeakKeyDictionary()


def frozen(module: nn.Module) -> nn.Module:
    """Return a copy of `module` to ask: the same one each time, until its weights change.

    So what it answered for one student is known to the next.
    """
    state = {name: t for name, t in module.state_dict().items() if isinstance(t, Tensor)}
    weights = array_fingerprint(
        *(
            t.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
            for t in state.values()
        )
    )
    key = fingerprint([repr(module), list(state), weights])
    known, kept = _COPIES.get(module, ("", None))
    if kept is None or known != key:
        kept = copy.deepcopy(module).eval().requires_grad_(False)
        _COPIES[module] = (key, kept)
    return kept


class Ensemble(nn.Module):
    """Several teachers as one: the logarithm of their mean probabilities.

        log p̄ = log (1/k · Σ softmax(z_i))

    Probabilities are averaged and not logits, so that a teacher whose logits are larger than the
    others' has no larger say; what comes out is logits whose softmax is that mean (Hinton et al.
    2015, section 5, take the mean of the predictions too).
    """

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return log-probabilities (n, classes)."""
        each = torch.stack([teacher(*inputs).log_softmax(dim=1) for teacher in self.teachers])
        return each.logsumexp(dim=0) - torch.log(torch.tensor(float(len(each))))


class Teacher:
    """Gives logits for a batch of training inputs; frozen and in evaluation mode.

    It computes in the precision that its student trains in; its answers are float32.

    What is random in an epoch depends on (seed, epoch, position) alone, so students that are
    trained after each other see the same batches: the answers to whole batches are kept, while
    memory lasts, for the next student.

    Where the task doesn't augment, each training example comes again unchanged in every epoch: the
    first question then makes it answer for all of them, in the order of the split. Those answers
    are the same, bit for bit, or aren't kept: it is tried beforehand whether an example's answer
    depends on its place in the batch.
    """

    def __init__(self, module: nn.Module, task: Task, precision: str = "32") -> None:
        self.module = module.eval().requires_grad_(False)
        self.task, self.half = task, HALVES.get(precision)
        tasks = _MEMORIES.setdefault(module, {})
        self.memory = tasks.setdefault(f"{task.fingerprint('train')} {precision}", Memory())

    def __call__(self, inputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return logits (n, classes), on the device of `inputs`."""
        self.module.to(inputs[0].device)
        with torch.no_grad():
            memory = self.memory
            if memory.examples is None:
                memory.examples = self._all_answers(len(batch), inputs[0].device)
            known = [memory.examples.get(key) for key in _keys(batch)] if memory.examples else []
            if known and all(answer is not None for answer in known):
                return torch.stack([a for a in known if a is not None]).to(inputs[0].device)
            return self._of_batch(inputs, batch)

    def _of_batch(self, inputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Answer a batch, unless it was answered before."""
        key, answers = _key(batch), self.memory.batches
        if key in answers:
            return answers[key].to(inputs[0].device)
        logits = self._computed(inputs)
        if logits.nbytes * (len(answers) + 1) <= _MOST_BYTES:
            answers[key] = logits.cpu()
        return logits

    def _all_answers(self, size: int, device: torch.device) -> Answers:
        """Answer all of the training split, in batches of `size`; nothing, where that won't do."""
        n, classes = self.task.size("train"), self.task.signature.classes
        fixed = getattr(self.task, "augment", "unknown") == "none"
        if not fixed or 4 * n * classes > _MOST_BYTES:
            return {}
        answers: Answers = {}
        for batch in self.task.batches("train", size):
            full = Batch(repeat_to(batch.inputs, size), batch.targets)
            logits = self._ask(full, device)
            if not answers and not self._independent(full, logits, device):
                return {}
            answers.update(zip(_keys(batch), logits.cpu(), strict=False))
        return answers

    def _ask(self, batch: Batch, device: torch.device) -> Tensor:
        names = [spec.name for spec in self.task.signature.inputs]
        return self._computed(tuple(torch.tensor(batch.inputs[n]).to(device) for n in names))

    def _computed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        memory = self.memory
        if not memory.prepared:
            memory.quick, memory.prepared = folded(self.module, inputs), True
        module = memory.quick.to(inputs[0].device) if memory.quick else self.module
        with torch.autocast(inputs[0].device.type, self.half, enabled=self.half is not None):
            logits: Tensor = module(*inputs)
        return logits.float() if self.half else logits

    def _independent(self, batch: Batch, logits: Tensor, device: torch.device) -> bool:
        """Say whether each example has the same answer in another place, bit for bit."""
        turned = {name: array[::-1].copy() for name, array in batch.inputs.items()}
        return torch.equal(self._ask(Batch(turned, batch.targets), device).flip(0), logits)


def _key(batch: Batch) -> bytes:
    """Return a digest of a batch's inputs."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(batch.inputs):
        array = np.ascontiguousarray(batch.inputs[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.digest()


def _keys(batch: Batch) -> list[bytes]:
    """Return a digest of each example's inputs."""
    arrays = [batch.inputs[name] for name in sorted(batch.inputs)]
    return [
        hashlib.blake2b(b"".join(a[row].tobytes() for a in arrays), digest_size=16).digest()
        for row in range(len(arrays[0]))
    ]
