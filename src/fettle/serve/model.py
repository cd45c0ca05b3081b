"""A bundle, opened to be served: verified, built as it was proven, replayed here, and warm.

Nothing is served on trust. The hashes are checked before the session is built and once more after,
for a folder may be swapped in between; the bundle's verdict has to be a pass; and the golden inputs
have to give the golden outputs on *this* processor: one INT8 file answers otherwise on a machine
without VNNI. `allow_unproven` goes on regardless, and says what it went past.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fettle.core.arrays import Arrays
from fettle.core.bundle import Bundle, Manifest
from fettle.core.errors import BundleError, CheckFailed
from fettle.measure.replay import replay
from fettle.runtimes import Session
from fettle.serve._engine import build_session, sha_of
from fettle.serve._packing import Sizes
from fettle.serve._places import name_of
from fettle.serve._warm import Warm, warm_up
from fettle.serve.protocol.signature import Signature


class Opening(Protocol):
    """What of the settings matters to opening a bundle."""

    @property
    def threads(self) -> int:
        """Threads of the engine; 0 uses all there are."""

    @property
    def max_batch(self) -> int | None:
        """The most rows of one run; None: what was proven."""

    @property
    def allow_unproven(self) -> bool:
        """Whether a bundle is served that fails a check."""

    @property
    def isolate(self) -> int:
        """How many worker processes run the engine; 0 runs it in this one."""

    @property
    def deadline_seconds(self) -> float:
        """How long a request may take."""


@dataclass(frozen=True)
class Model:
    """One bundle, running.

    Attributes:
        name: what clients call it.
        version: a whole number, as text.
        sha: of the manifest, 16 hex digits: which bundle answered.
        path: its folder.
        manifest: what the bundle says of itself.
        signature: inputs, outputs, labels and the largest batch.
        warm: the batch sizes that may be used, and what each takes.
        warnings: what was gone past, with `allow_unproven`, and batch sizes that were refused.
    """

    name: str
    version: str
    sha: str
    path: Path
    manifest: Manifest
    signature: Signature
    warm: Warm
    session: Session
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path, settings: Opening, name: str = "", version: str = "1") -> Model:
        """Open the bundle in folder `path` and make it ready to answer.

        Raises:
            BundleError: no bundle, one that is corrupted, or one that changed meanwhile.
            CheckFailed: it wasn't proven, or computes something else on this processor.
            MissingError: its engine isn't on this machine.
            ModelError: the engine refuses it.
        """
        bundle = Bundle.open(path)
        doubts = _unless_allowed(_no_proof(bundle), settings)
        session = _session(bundle, settings)
        try:
            _unchanged(bundle)
            doubts += _replayed(session, bundle, settings)
            warm = warm_up(session, bundle, settings.max_batch)
        except BaseException:
            session.close()
            raise
        doubts += [f"batches of {size} aren't used: {why}" for size, why in warm.refused.items()]
        return cls(
            name=name or name_of(path),
            version=version,
            sha=sha_of(bundle.manifest),
            path=path,
            manifest=bundle.manifest,
            signature=_signature(bundle.manifest, warm.sizes),
            warm=warm,
            session=session,
            warnings=tuple(doubts),
        )

    @property
    def callers(self) -> int:
        """How many threads keep the engine busy."""
        return max(1, self.session.callers)

    @property
    def workers_lost(self) -> int | None:
        """How many of its worker processes have ended unasked; None where it has none."""
        return getattr(self.session, "lost", None)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name, batch first; blocking, safe for `callers` threads.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape.
            ModelError: the engine can't compute the model for these inputs.
        """
        return self.session.run(inputs)

    def close(self) -> None:
        """Give back what the session holds; runs that were begun come to their end."""
        self.session.close()


def _no_proof(bundle: Bundle) -> str | None:
    outcome = (bundle.manifest.verdict or {}).get("outcome", "none")
    if outcome == "pass":
        return None
    return f"the verdict of {bundle.path} is {outcome}, not pass"


def _unless_allowed(doubt: str | None, settings: Opening) -> list[str]:
    """Return the doubt where it is allowed, else raise CheckFailed."""
    if doubt is None:
        return []
    if not settings.allow_unproven:
        raise CheckFailed(
            f"{doubt}; build and check a bundle on this machine (`fettle optimize`,"
            " `fettle check`), or serve it knowingly with --allow-unproven"
        )
    return [doubt]


def _session(bundle: Bundle, settings: Opening) -> Session:
    if not settings.isolate:
        return build_session(bundle, settings.threads)
    # here, for it costs what serves without worker processes nothing
    from fettle.serve.workers.opening import isolated

    return isolated(bundle, settings, lambda session, copy: _replayed(session, copy, settings))


def _replayed(session: Session, bundle: Bundle, settings: Opening) -> list[str]:
    return _unless_allowed(replay(session, bundle).refused, settings)


def _unchanged(bundle: Bundle) -> None:
    if sha_of(Bundle.open(bundle.path).manifest) != sha_of(bundle.manifest):
        raise BundleError(f"{bundle.path} was changed while it was loaded; load it again")


def _signature(manifest: Manifest, sizes: Sizes) -> Signature:
    return replace(Signature.of(manifest), max_batch=sizes.largest or None)
