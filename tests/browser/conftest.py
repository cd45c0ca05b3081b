"""Pages of the report in Debian's Chromium; skips where there is none."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fettle import report

_SAMPLE = Path(__file__).parents[1] / "report" / "sample_result.py"
_BENCH = _SAMPLE.with_name("bench_sample.py")
_SEARCH = _SAMPLE.with_name("search_sample.py")
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    chromium = os.environ.get("FETTLE_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Chromium on the path or in FETTLE_CHROMIUM")
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=chromium, headless=True, args=_OPTIONS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of each sample, written to a file."""
    folder = tmp_path_factory.mktemp("report")
    samples = runpy.run_path(str(_SAMPLE))
    found = {}
    for name in ("sample", "open", "failed"):
        found[name] = folder / f"{name}.html"
        found[name].write_text(report.render(samples[f"{name}_result"]()), encoding="utf-8")
    found["search"] = folder / "search.html"
    search = runpy.run_path(str(_SEARCH))["search_sample"]()
    page = report.render(samples["sample_result"]() | {"search": search})
    found["search"].write_text(page, encoding="utf-8")
    found["bench"] = folder / "bench.html"
    result = runpy.run_path(str(_BENCH))["bench_result"]()
    found["bench"].write_text(report.bench_page(result), encoding="utf-8")
    return found


@pytest.fixture
def visit(browser: Any, files: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Open the report of a sample in a window of its own; `page.seen` holds what it did."""
    contexts = []

    def opened(sample: str = "sample", width: int = 1100, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.seen = {"requests": [], "complaints": []}
        page.on("request", lambda request: page.seen["requests"].append(request.url))
        page.on("console", lambda message: page.seen["complaints"].append(message.text))
        page.on("pageerror", lambda error: page.seen["complaints"].append(str(error)))
        page.goto(files[sample].as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
