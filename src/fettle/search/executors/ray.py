"""Stages are tasks of a Ray cluster: training on any node, measuring on those that carry a tag.

**When.** A search whose trainings are long, more machines than one, and a target that is another
machine than the one at hand (an edge board, a server of the production's kind).

**How.** Every machine has the same fettle, and the same data under the same name. One is the head:
`ray start --head`; the others join it: `ray start --address=HEAD:6379`. Machines of the target's
kind say so: `--resources='{"target": 1}'`. Then `fettle optimize … --executor ray://HEAD:6379`, on
one of them. Without an address, the cluster that this machine belongs to; with none, one is begun.

**What to expect.** A job has its node to itself, all its processors and GPUs, so that nothing
disturbs a measurement and no two studies measure on one node at once. The store and the journal
lie where the study was begun, as without Ray. A lost node costs its running stage, which begins
again on another. Ctrl-C and the time limit stop the jobs. What a search times to look ahead
(kernels, layers left in float) it times where it was begun: begin it on a machine of the target's
kind. What it compares and proves is measured on the target alone. Ray's own defaults guard the
cluster: keep its ports inside your network.

Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018,
https://arxiv.org/abs/1712.05889.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import ray
from ray._private import worker

from fettle.core.errors import MissingError
from fettle.core.knobs import Range, Text
from fettle.search.executors._executor import Crew, Executor
from fettle.search.executors._ray_crew import RayCrew

_KNOCK = 5.0  # seconds
_QUIET: dict[str, Any] = {
    "log_to_driver": False, "logging_level": "error", "configure_logging": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ray(Executor):
    """Does the stages of a study on a Ray cluster."""

    address: Annotated[
        str, Text("HOST:PORT"), "of the cluster's head; empty: the one that this machine is in"
    ] = ""
    tag: Annotated[
        str, Text("a resource's name"), "of nodes that measure, one of it each: the target"
    ] = "target"
    tries: Annotated[int, Range(1, 100), "how often a job is begun that is lost each time"] = 3

    def crew(self, say: Callable[[str], None]) -> Crew:
        """Return the cluster's nodes, ready to take jobs.

        Raises:
            MissingError: no cluster answers, or none of its nodes is the target.
            InputError: a node has other versions of what makes the artifacts.
        """
        ours = not ray.is_initialized()
        if ours:
            _connect(self.address, self.tag)
        try:
            return RayCrew(self.tag, self.tries, say, leaves=ours)
        except BaseException:
            if ours:
                ray.shutdown()
            raise


def _connect(address: str, tag: str) -> None:
    """Join a cluster; without an address the one that is there, or else one of this machine alone.

    Raises:
        MissingError: nobody answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing here phones home
    # else it writes of lost nodes to stdout, which holds what `--json` says and nothing beside it
    vars(worker)["_worker_logs_enabled"] = False
    if address:
        _knock(address)
    try:
        ray.init(address=address or os.environ.get("RAY_ADDRESS") or "auto", **_QUIET)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        if not address and isinstance(error, ConnectionError):
            ray.init(address="local", resources={tag: 1}, include_dashboard=False, **_QUIET)
            return
        raise _nobody(address, error) from error


def _knock(address: str) -> None:
    """Try the address for a moment: Ray itself tries for minutes, and says nothing.

    Raises:
        MissingError: nobody answers there.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _nobody(address, error) from error


def _nobody(address: str, error: Exception) -> MissingError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return MissingError(
        f"no Ray cluster answers at `{address}` ({first})",
        "`ray start --head` on that machine, and give its HOST:PORT, such as `ray://10.0.0.5:6379`",
    )
