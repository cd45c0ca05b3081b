"""The nodes of a Ray cluster as a crew: one job a node, and a look at who is still there."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fettle.core.errors import InputError, MissingError
from fettle.search.executors import _ray_worker
from fettle.search.executors._executor import Crew, Ticket, Unmanned
from fettle.search.executors._job import Done, Job, Lost, Need
from fettle.search.executors._node import check_versions
from fettle.search.executors._transport import error_of
from fettle.search.workshop import libraries

_ANSWER = 120.0  # seconds; a node that hasn't said by then what it is won't
_SWEEP = 10.0  # seconds for all nodes to clean up
_DOUBT = 20.0  # seconds; so long a dead node may still be thought alive


@dataclass(frozen=True)
class _Node:
    """A living node, and what a job that has it to itself takes."""

    id: str
    host: str
    cpus: float
    gpus: float
    is_target: bool


@dataclass(eq=False)
class _Given:
    """A job that was given; `ref` is Ray's, once it has begun on `node`."""

    job: Job
    node: _Node | None = None
    ref: Any = None


class RayCrew(Crew):
    """Gives each job a whole node, so that nothing disturbs a measurement.

    Args:
        tag: the resource of nodes that measure.
        tries: how often a job is begun before its being lost is an error.
        say: shows a line of progress.
        leaves: whether to leave the cluster when this closes.
    """

    name = "ray"

    def __init__(self, tag: str, tries: int, say: Callable[[str], None], leaves: bool) -> None:
        self.tag, self.tries, self._say, self._leaves = tag, tries, say, leaves
        self._study = f"study-{uuid.uuid4().hex[:12]}"
        self._nodes: dict[str, _Node] = {}
        self._waiting: list[_Given] = []
        self._running: list[_Given] = []
        self._sent: dict[tuple[str, bool], Any] = {}
        self._doubted: dict[str, float] = {}  # nodes that lost a job, and until when
        self._closed = False
        self._look()
        self.target = self._describe()
        targets = sum(node.is_target for node in self._nodes.values())
        say(f"ray: {len(self._nodes)} nodes, {targets} of them `{tag}`")

    def start(self, job: Job) -> Ticket:
        """Begin a job as soon as a node is free for it."""
        given = _Given(job)
        self._waiting.append(given)
        self._place()
        return given

    def wait(self, tickets: Sequence[Ticket], seconds: float) -> list[Ticket]:
        """Return the finished ones and the lost ones, after at most `seconds` without any."""
        self._look()
        lost = [given for given in tickets if self._is_lost(given)]
        if lost:
            return lost
        self._place()
        self._need_hands()
        begun = {given.ref: given for given in tickets if given.ref is not None}
        if not begun:
            time.sleep(min(seconds, 0.1))
            return []
        ray.wait(list(begun), num_returns=1, timeout=seconds)
        ready, _ = ray.wait(list(begun), num_returns=len(begun), timeout=0)
        return [begun[ref] for ref in ready]

    def result(self, ticket: Ticket) -> Done:
        """Return what came of a finished job."""
        self._running.remove(ticket)
        told, files = self._got(ticket)
        self._place()
        found = json.loads(told)
        self._doubted.pop(ticket.node.id, None)
        if "error" in found:
            raise error_of(found["error"])
        return Done(files, found["value"], tuple(found["said"]))

    def cancel(self, ticket: Ticket) -> None:
        """Stop a job where it runs, with its process."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif ticket in self._running:
            self._running.remove(ticket)
            ray.cancel(ticket.ref, force=True)

    def close(self) -> None:
        """Stop everything, clean up on all nodes, and leave the cluster."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RayError, ConnectionError, RuntimeError):
            for given in [*self._waiting, *self._running]:
                self.cancel(given)
            self._look()
            swept = [self._aside(_ray_worker.sweep, n, self._study) for n in self._nodes.values()]
            ray.wait(swept, num_returns=len(swept), timeout=_SWEEP)
        self._sent.clear()
        if self._leaves:
            ray.shutdown()

    def _look(self) -> None:
        """See which nodes are there; one of them is kept free of work that nobody waits for."""
        found = [_node(told, self.tag) for told in _nodes() if told["Alive"]]
        self._nodes = {node.id: node for node in found}
        self.room = len(found) - 1

    def _is_lost(self, given: _Given) -> bool:
        return given.node is not None and given.node.id not in self._nodes

    def _place(self) -> None:
        """Begin what waits on the nodes that are free, measurements first."""
        for given in sorted(self._waiting, key=lambda given: not given.job.measures):
            node = self._free_for(given.job)
            if node is not None:
                self._waiting.remove(given)
                self._running.append(given)
                given.node, given.ref = node, self._begin(given.job, node)

    def _free_for(self, job: Job) -> _Node | None:
        """Return a node that is free; those that measure last, for a measurement may come."""
        now = time.monotonic()
        taken = {given.node.id for given in self._running if given.node}
        taken |= {name for name, until in self._doubted.items() if now < until}
        free = [node for node in self._able(job) if node.id not in taken]
        return min(free, key=lambda node: node.is_target, default=None)

    def _able(self, job: Job) -> list[_Node]:
        return [node for node in self._nodes.values() if node.is_target or not job.measures]

    def _need_hands(self) -> None:
        """Raise Unmanned where a job waits that no node could ever do."""
        for given in self._waiting:
            if not self._able(given.job):
                who = f"node with the resource `{self.tag}`" if self._nodes else "node"
                raise Unmanned(
                    f"no {who} is left, and `{given.job.name}` waits for one",
                    "let one join the cluster, and give the same command again: what was"
                    " finished isn't done again",
                )

    def _begin(self, job: Job, node: _Node) -> Any:
        resources = {self.tag: 1} if job.measures else {}
        task = ray.remote(_ray_worker.work).options(
            num_cpus=node.cpus, num_gpus=node.gpus, resources=resources, max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False), name=job.name,
        )  # fmt: skip
        needs = [(need.name, need.files is None, [self._send(need)]) for need in job.needs]
        place = {"study": self._study, "node": node.id, "cwd": str(Path.cwd())}
        return task.remote(json.dumps(job.order), job.files, needs, place)

    def _send(self, need: Need) -> Any:
        """Return where Ray has the files of a need, which are handed to it once."""
        key = (need.name, need.files is None)
        if key not in self._sent:
            parcel = need.pack()
            if not parcel:
                return ray.put(parcel)
            self._sent[key] = ray.put(parcel)
        return self._sent[key]

    def _got(self, given: _Given) -> tuple[str, dict[str, bytes]]:
        """Return what Ray brings of a job.

        Raises:
            Lost: it brings nothing.
            InputError: fettle itself fails there.
        """
        assert given.node is not None
        host = given.node.host
        if self._is_lost(given):
            raise Lost(f"{host} is gone")
        try:
            told, files = ray.get(given.ref)
        except RayTaskError as error:
            raise InputError(f"fettle doesn't work on {host}: {_last_line(error)}") from error
        except RayError as error:
            self._doubted[given.node.id] = time.monotonic() + _DOUBT
            raise Lost(f"{host} lost it ({type(error).__name__})") from error
        return told, files

    def _describe(self) -> dict[str, Any]:
        """Return what the target is, having seen that every node is fit for a study.

        Raises:
            MissingError: there is no target, or a node doesn't answer.
            InputError: a node has other versions than are here.
        """
        targets = [node for node in self._nodes.values() if node.is_target]
        if not targets:
            raise MissingError(
                f"no node of the Ray cluster has the resource `{self.tag}`, so none may measure",
                f"`ray start --address=HEAD:6379 --resources='{{\"{self.tag}\": 1}}'` on the"
                " machines of the target's kind",
            )
        refs = {node.id: self._aside(_ray_worker.describe, node) for node in self._nodes.values()}
        told = {name: self._answer(self._nodes[name], ref) for name, ref in refs.items()}
        return told[targets[0].id]

    def _answer(self, node: _Node, ref: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(ray.get(ref, timeout=_ANSWER))
        except RayTaskError as error:
            raise InputError(f"fettle doesn't work on {node.host}: {_last_line(error)}") from error
        except RayError as error:
            raise MissingError(
                f"the node {node.host} doesn't answer ({type(error).__name__})",
                "`ray status` tells how the cluster is",
            ) from error
        try:
            check_versions(found["libraries"], libraries())
        except InputError as error:
            raise InputError(f"{node.host}: {error}") from None
        return found

    def _aside(self, function: Callable[..., Any], node: _Node, *given: Any) -> Any:
        """Run something small on a node, beside whatever it does."""
        where = NodeAffinitySchedulingStrategy(node.id, soft=False)
        task = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        return task.remote(*given)


def _nodes() -> list[dict[str, Any]]:
    """Return what Ray tells of all nodes, dead ones too."""
    told: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return told


def _node(told: dict[str, Any], tag: str) -> _Node:
    """Return a node from what Ray tells of it."""
    has = told["Resources"]
    host = f"{told['NodeManagerHostname']} ({told['NodeID'][:6]})"
    return _Node(told["NodeID"], host, has.get("CPU", 0), has.get("GPU", 0), has.get(tag, 0) >= 1)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
