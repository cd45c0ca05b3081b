"""What makes the page again and again: a process of its own, of the lowest priority.

It reads the log beside the server that writes it, and takes at most a tenth of a core. It ends when
its standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fettle.core.bundle import Bundle
from fettle.core.errors import FettleError
from fettle.monitor._reading import LogFile
from fettle.monitor.ab import Plan
from fettle.monitor.alerts import Alerts, Rules
from fettle.monitor.cost import Prices
from fettle.monitor.dashboard._page import fragment, page
from fettle.monitor.dashboard.state import Wanted, gather, renewed

HEAD = struct.Struct(">II")  # bytes of the page, and of its main part
_REST = 9.0  # times what was spent
_NICEST = 19
_LOG = logging.getLogger("fettle.monitor")


@dataclass(frozen=True)
class Showing:
    """What a live dashboard shows.

    Attributes:
        log: file of the prediction log.
        every_s: how often it is made anew, at most.
        last_s: how far back latency and traffic are told.
        bundle: folder of what is served; '' for none.
        prices, rules: files; '' for none.
        share: of the callers that B is to get; None where nothing is split.
    """

    log: str
    every_s: float = 5.0
    last_s: float = 3600.0
    bundle: str = ""
    prices: str = ""
    rules: str = ""
    share: float | None = None

    def to_text(self) -> str:
        """Return it as one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Showing:
        """Read what `to_text` wrote."""
        return cls(**json.loads(text))


class Maker:
    """Makes the page of one log.

    Raises:
        FettleError: the bundle, prices, rules or the alerts' history can't be read.
    """

    def __init__(self, showing: Showing, clock: Callable[[], float] = time.time) -> None:
        self._showing = showing
        manifest = Bundle.open(Path(showing.bundle)).manifest if showing.bundle else None
        names = manifest.labels if manifest else ()
        self._wanted = Wanted(
            last_s=showing.last_s,
            manifest=manifest,
            plan=Plan(share=showing.share, classes={name: at for at, name in enumerate(names)}),
            prices=Prices.read(showing.prices) if showing.prices else None,
            clock=clock,
        )
        self._alerts = Alerts(Rules.read(showing.rules)) if showing.rules else None

    def state(self) -> dict[str, Any]:
        """Return what is shown now, alerts told.

        Raises:
            FettleError: the log can't be read.
        """
        with LogFile(self._showing.log) as log:
            found = gather(log, self._wanted)
        if self._alerts is None:
            return found
        self._alerts.look(found)
        return renewed({**found, "alerts": self._alerts.to_json()})

    def pages(self) -> tuple[bytes, bytes]:
        """Return the page, and its main part."""
        state = self.state()
        return page(state, self._showing.every_s).encode(), fragment(state).encode()


def work(showing: Showing, given: BinaryIO, told: BinaryIO) -> None:
    """Make pages until `given` ends.

    Raises:
        FettleError: as `Maker`.
    """
    maker = Maker(showing)
    while True:
        before = time.process_time()
        try:
            whole, main = maker.pages()
        except FettleError as error:  # the log may be about to be made
            _LOG.warning("%s", error)
        else:
            told.write(HEAD.pack(len(whole), len(main)) + whole + main)
            told.flush()
        rest = max(showing.every_s, _REST * (time.process_time() - before))
        if select.select([given], [], [], rest)[0]:
            return


def main() -> None:
    """Work for who started this process."""
    logging.basicConfig(format="%(name)s: %(message)s")
    with contextlib.suppress(AttributeError, OSError):  # not every system has it
        os.setpriority(os.PRIO_PROCESS, 0, _NICEST)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        work(Showing.from_text(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
