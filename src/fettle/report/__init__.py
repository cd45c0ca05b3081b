"""What a result says, for people: a table for terminals, a model card, one self-contained page.

It reads records only: `result.json` as `fettle optimize --json` prints it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fettle.core.errors import InputError
from fettle.core.files import write_text
from fettle.report._bench import bench_table
from fettle.report._bench_page import bench_page
from fettle.report._card import model_card
from fettle.report._checklist import checklist_text
from fettle.report._inspect import inspect_text
from fettle.report._page import page
from fettle.report._record import read_record
from fettle.report._search_text import explanation_text
from fettle.report._text import text_table

__all__ = [
    "bench_page",
    "bench_table",
    "card",
    "checklist_text",
    "explanation",
    "inspect_text",
    "render",
    "table",
    "write",
]

RESULT = "result.json"
PAGE = "report.html"


def render(result: Mapping[str, Any]) -> str:
    """Return a result as one HTML page that needs nothing but itself.

    Raises:
        InputError: the result is no object, or of a schema that this fettle doesn't know.
    """
    return page(read_record(result))


def table(result: Mapping[str, Any]) -> str:
    """Return the performance table as plain text, at most 120 columns wide.

    Raises:
        InputError: the result is no object, or of a schema that this fettle doesn't know.
    """
    return text_table(read_record(result))


def card(result: Mapping[str, Any]) -> str:
    """Return the model card of the best artifact, in markdown.

    Raises:
        InputError: the result is no object, or of a schema that this fettle doesn't know.
    """
    return model_card(read_record(result))


def explanation(result: Mapping[str, Any]) -> str:
    """Return why the winner of a search won, as plain text, at most 120 columns wide.

    Raises:
        InputError: the result is no object, of a schema that this fettle doesn't know, or no
            search's.
    """
    return explanation_text(read_record(result))


def write(folder: str | Path) -> Path:
    """Write `report.html` beside the `result.json` of a folder, and return its path.

    Raises:
        InputError: there is no `result.json`, or it can't be read as a result.
        StorageError: the page can't be written.
    """
    path = Path(folder) / PAGE
    write_text(path, render(_read(Path(folder) / RESULT)))
    return path


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"`{path.parent}` holds no `{path.name}`; name a folder that `fettle demo --out` or"
            " `fettle optimize --out` made"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} can't be read as a result ({error}); make it anew with `fettle optimize`"
        ) from error
