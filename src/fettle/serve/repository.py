"""The models that a server holds: by name and version, swapped without losing a request.

A new bundle is loaded and proven beside the one that serves; then it takes its place at once, and
the old one is closed when all that it let in is answered. A bundle that fails leaves the old one in
its place. Only folders that were named when the server was started are ever read: whoever asks over
the network names a model, never a path.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fettle.core.bundle import is_bundle
from fettle.core.errors import BundleError, FettleError
from fettle.serve._places import FIRST, Place, bundles_in, given, name_of, state_of
from fettle.serve.batcher import Batcher, BatchLimits
from fettle.serve.errors import BadRequest, Conflict, NotFound, NotReady
from fettle.serve.model import Model
from fettle.serve.settings import Settings
from fettle.serve.statistics import Statistics

State = Literal["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]
Opener = Callable[[Place], Model]


@dataclass
class Served:
    """A model that answers, with what drives it.

    `state` is READY, then UNLOADING while it answers what it let in. `statistics` outlives it: a
    reloaded model counts on.
    """

    model: Model
    batcher: Batcher
    statistics: Statistics
    state: State = "READY"


@dataclass
class _Entry:
    """One name and version: where its bundle lies, and what answers for it, if anything does."""

    place: Place
    statistics: Statistics = field(default_factory=Statistics)
    state: State = "UNAVAILABLE"
    reason: str = ""
    served: Served | None = None
    wanted: bool = True
    loaded: Hashable = None  # the folder's state when it was last loaded
    seen: Hashable = None  # and when it was last looked at


class Repository:
    """Models by name and version.

    Args:
        settings: how bundles are opened and driven.
        opener: opens a bundle; by default in this process.
    """

    def __init__(self, settings: Settings, opener: Opener | None = None) -> None:
        self._settings = settings
        self._open = opener or self._open_here
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._ready: dict[tuple[str, str | None], Served] = {}
        self._folders: list[Path] = []
        self._loading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    def give(self, text: str) -> None:
        """Add what a command line names: `[NAME[:VERSION]=]PATH`, a bundle or a folder of several.

        Raises:
            InputError: nothing that reads so, or a name that is taken.
            BundleError: no bundle is there.
        """
        name, version, path = given(text)
        if is_bundle(path):
            self.add(name or name_of(path), version or FIRST, path)
            return
        found = bundles_in(path)
        if not found:
            raise BundleError(f"a bundle, or a folder that holds some, was expected at {path}")
        self._folders.append(path)
        for place in found:
            self.add(place.name, place.version, place.path)

    def add(
        self, name: str, version: str, path: Path, statistics: Statistics | None = None
    ) -> None:
        """Add a bundle's folder under a name and a version; it is loaded by `start`.

        Args:
            name: what clients call it.
            version: a whole number, as text.
            path: the folder.
            statistics: where its requests are counted; None for counters of its own.

        Raises:
            InputError: a name or a version that isn't one, or that is taken.
        """
        place = Place(name, version, Path(path))
        if (name, version) in self._entries:
            other = self._entries[name, version].place.path
            raise Conflict(
                f"`{name}` version {version} is {other} already, so {path} can't be it too:"
                f" give it another name or version, NAME:VERSION={path}"
            )
        self._entries[name, version] = _Entry(place, statistics or Statistics())

    def find(self, name: str, version: str | None = None) -> Served:
        """Return what answers for a name: that version, else the highest that is ready.

        Raises:
            NotFound: no such model or version.
            NotReady: it isn't loaded; the message says why.
        """
        served = self._ready.get((name, version or None))
        if served is None:
            raise self._absence(name, version)
        return served

    def versions(self, name: str) -> list[str]:
        """Return the versions of a name that are ready, the lowest first."""
        return sorted((v for n, v in self._ready if n == name and v is not None), key=int)

    def index(self) -> list[dict[str, str]]:
        """Return every model and version with its state, and why it isn't ready."""
        return [
            {"name": name, "version": version, "state": entry.state, "reason": entry.reason}
            for (name, version), entry in sorted(self._entries.items())
        ]

    def statistics(self) -> Mapping[tuple[str, str], Statistics]:
        """Return the counters of every name and version."""
        return {key: entry.statistics for key, entry in self._entries.items()}

    def workers_lost(self) -> dict[tuple[str, str], int]:
        """Return how many worker processes each model that answers has lost, where it has any."""
        found = {k: e.served.model.workers_lost for k, e in self._entries.items() if e.served}
        return {key: lost for key, lost in found.items() if lost is not None}

    def ready(self) -> bool:
        """Say whether all that should be loaded is."""
        wanted = [entry for entry in self._entries.values() if entry.wanted]
        return bool(wanted) and all(entry.served is not None for entry in wanted)

    async def start(self) -> None:
        """Load all that was added.

        Raises:
            FettleError: the first that can't be loaded.
        """
        for entry in list(self._entries.values()):
            await self._load(entry)

    async def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Load a name's versions, or load them anew and swap.

        Raises:
            NotFound: no such model among the folders that were given.
            BadRequest: parameters, which would bring a configuration or a file from outside.
            Conflict: a bundle can't be loaded; what served before goes on.
        """
        if parameters:
            raise BadRequest(
                "no parameters were expected: a bundle brings its own configuration and files, got"
                f" {', '.join(map(repr, list(parameters)[:3]))}"
            )
        for entry in self._named(name):
            entry.wanted = True
            try:
                await self._load(entry)
            except FettleError as error:
                raise Conflict(f"failed to load `{name}`: {error}") from error

    async def unload(self, name: str) -> None:
        """Stop letting requests in for a name; what was let in is still answered.

        Raises:
            NotFound: no such model.
        """
        for entry in self._named(name):
            self._withdraw(entry)

    async def reload(self) -> None:
        """Look at the folders once, and load what has changed since it was loaded.

        What can't be loaded leaves what serves in its place; `index` tells why.
        """
        await self._look()
        for entry in list(self._entries.values()):
            if entry.wanted and (entry.served is None or entry.seen != entry.loaded):
                await self._load_quietly(entry)

    async def watch(self, every_s: float = 2.0) -> None:
        """Look at the folders again and again; load what changed and then stayed as it is."""
        while True:
            await asyncio.sleep(every_s)
            before = {key: entry.seen for key, entry in self._entries.items()}
            await self._look()
            for key, entry in list(self._entries.items()):
                settled = before.get(key) == entry.seen is not None
                if entry.wanted and settled and entry.seen != entry.loaded:
                    await self._load_quietly(entry)

    async def close(self) -> None:
        """Let in nothing more, answer what was let in within the drain limit, and close."""
        for entry in self._entries.values():
            entry.wanted = False
            self._withdraw(entry)
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def _look(self) -> None:
        """Note how each folder is now, and what folders of several hold."""
        for folder in self._folders:
            with contextlib.suppress(FettleError, OSError):
                self._follow(folder, await asyncio.to_thread(bundles_in, folder))
        for entry in list(self._entries.values()):
            entry.seen = await asyncio.to_thread(state_of, entry.place.path)

    def _follow(self, folder: Path, found: list[Place]) -> None:
        """Add what is new in a folder of several, and withdraw what is gone from it."""
        for place in found:
            if (place.name, place.version) not in self._entries:
                self.add(place.name, place.version, place.path)
        there = {place.path for place in found}
        for key, entry in list(self._entries.items()):
            path = entry.place.path
            if path.is_relative_to(folder) and path != folder and path not in there:
                self._withdraw(entry)
                del self._entries[key]

    async def _load_quietly(self, entry: _Entry) -> None:
        with contextlib.suppress(FettleError):
            await self._load(entry)

    async def _load(self, entry: _Entry) -> None:
        """Open the entry's bundle and swap it in; one at a time, for warm-up measures."""
        async with self._loading:
            entry.state = "LOADING" if entry.served is None else "READY"
            entry.loaded = entry.seen = await asyncio.to_thread(state_of, entry.place.path)
            try:
                model = await asyncio.to_thread(self._open, entry.place)
            except Exception as error:  # whatever a broken file does to an engine
                raise _failed(entry, error) from error
            if entry.wanted:
                self._swap(entry, Served(model, self._batcher(model, entry), entry.statistics))
            else:  # unloaded meanwhile
                await asyncio.to_thread(model.close)

    def _swap(self, entry: _Entry, served: Served | None) -> None:
        """Put what answers from now on in the place of what did, which is drained and closed."""
        old, entry.served = entry.served, served
        if served is not None:
            entry.state, entry.reason = "READY", "; ".join(served.model.warnings)
        self._ready = self._lookup()
        if old is not None:
            old.state = "UNLOADING"
            task = asyncio.get_running_loop().create_task(self._retire(old, entry))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _withdraw(self, entry: _Entry) -> None:
        entry.wanted = False
        entry.state = "UNAVAILABLE" if entry.served is None else "UNLOADING"
        entry.reason = "unloaded"
        self._swap(entry, None)

    async def _retire(self, old: Served, entry: _Entry) -> None:
        left = await old.batcher.drain(self._settings.drain_seconds)
        old.batcher.close()
        await asyncio.to_thread(old.model.close)
        if entry.served is None and entry.state == "UNLOADING":
            entry.state = "UNAVAILABLE"
            entry.reason = f"unloaded; {left} requests went unanswered" if left else "unloaded"

    def _lookup(self) -> dict[tuple[str, str | None], Served]:
        """Return what answers for each name and version, and for a name alone."""
        found: dict[tuple[str, str | None], Served] = {}
        for (name, version), entry in sorted(self._entries.items(), key=lambda e: int(e[0][1])):
            if entry.served is not None:
                found[name, version] = found[name, None] = entry.served
        return found

    def _named(self, name: str) -> list[_Entry]:
        found = [entry for (known, _), entry in self._entries.items() if known == name]
        if not found:
            raise self._absence(name, None)
        return found

    def _absence(self, name: str, version: str | None) -> NotFound | NotReady:
        versions = {v: entry for (n, v), entry in self._entries.items() if n == name}
        known = versions.get(version) if version else next(iter(versions.values()), None)
        if known is not None:
            return NotReady(f"model `{name}` isn't ready ({known.state.lower()}); ask again")
        if versions:
            return NotFound(f"model `{name}` has no version {version!r}")
        return NotFound(f"no model `{name}` is served here")

    def _open_here(self, place: Place) -> Model:
        return Model.load(place.path, self._settings, place.name, place.version)

    def _batcher(self, model: Model, entry: _Entry) -> Batcher:
        # a process that hangs or starts must not hold up the event loop
        inline = {"inline_s": 0.0} if self._settings.isolate else {}
        limits = BatchLimits(
            **inline,
            queue=self._settings.queue,
            delay_s=self._settings.batch_delay_ms / 1000,
            callers=model.callers,
            shared=model.warm.shared,
        )
        return Batcher(model.run, model.warm.sizes, limits, observe=entry.statistics.executed)


def _failed(entry: _Entry, error: Exception) -> FettleError:
    """Note why a bundle couldn't be loaded; what serves in its place goes on."""
    entry.reason = str(error) or type(error).__name__
    entry.state = "UNAVAILABLE" if entry.served is None else "READY"
    if isinstance(error, FettleError):
        return error
    return BundleError(f"{entry.place.path} can't be loaded ({type(error).__name__}: {error})")
