"""Search: from a model and recipes to a proven artifact; nothing else loops."""

from fettle.search._store import sole_worker
from fettle.search.study import Candidate, Setting, Study
from fettle.search.workshop import Source, Workshop

__all__ = ["Candidate", "Setting", "Source", "Study", "Workshop", "sole_worker"]
