"""Which extras are installed, and which packages don't fit each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
_NAME = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)")
_CLAUSE = re.compile(r"(>=|==|<=|<|>|~=|!=)\s*([\w.*+!-]+)")
_HIDDEN = ("dev", "peers", "all")
# Two packages that install the same module: whichever came last wins, and both break on removal.
_RIVALS = (
    (("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"), "onnxruntime"),
    (("opencv-python", "opencv-python-headless"), "opencv-python-headless"),
)
_WATCHED = ("fettle", "torch", "torchvision", "torchao", "onnxruntime", "onnx", "onnxscript",
            "onnx-ir", "openvino", "transformers", "timm", "lightning-fabric")  # fmt: skip


def extras() -> dict[str, dict[str, Any]]:
    """Return for each extra of fettle what is missing, and the line that installs it."""
    wanted: dict[str, list[str]] = {}
    for line in _requires("fettle"):
        found = _EXTRA.search(line)
        if found and found[1] not in _HIDDEN:
            wanted.setdefault(found[1], []).append(name_of(line))
    found_all = {}
    for extra, names in wanted.items():
        missing = [name for name in names if _version(name) is None]
        install = f"pip install 'fettle[{extra}]'" if missing else None
        found_all[extra] = {"installed": not missing, "missing": missing, "install": install}
    return found_all


def conflicts() -> list[dict[str, str]]:
    """Return what doesn't fit, each with its mend."""
    return [*_rivals(), *_unmet()]


def name_of(requirement: str) -> str:
    """Return the package's name of a line such as "torch[x]>=2.1; python_version > '3'"."""
    found = _NAME.match(requirement)
    return found[1] if found else requirement


def fits(found: str, clauses: str) -> bool:
    """Say whether a version meets clauses such as ">=2.1,<3"; unreadable ones are taken as met.

    Pre-releases and local parts ("+cpu") are compared by their numbers alone.
    """
    return all(_meets(numbers(found), sign, wanted) for sign, wanted in _CLAUSE.findall(clauses))


def numbers(text: str) -> tuple[int, ...]:
    """Return the release numbers of a version, without zeros at the end."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    parts = [int(part) for part in release[0].split(".")] if release else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _meets(found: tuple[int, ...], sign: str, wanted: str) -> bool:
    bound = numbers(wanted)
    if wanted.endswith(".*"):
        same = (*found, *[0] * len(bound))[: len(bound)] == bound
        return same if sign == "==" else not same
    if sign == "~=":
        kept = wanted.split(".")[:-1]
        return found >= bound and _meets(found, "==", ".".join([*kept, "*"]))
    answers = {">=": found >= bound, "<=": found <= bound, ">": found > bound, "<": found < bound,
               "==": found == bound, "!=": found != bound}  # fmt: skip
    return answers[sign]


def _rivals() -> Iterator[dict[str, str]]:
    for names, keep in _RIVALS:
        there = [name for name in names if _version(name)]
        if len(there) > 1:
            mend = f"pip uninstall -y {' '.join(there)} && pip install {keep}"
            yield {"what": f"{' and '.join(there)} overwrite each other's files", "mend": mend}


def _unmet() -> Iterator[dict[str, str]]:
    """Yield what installed packages ask of others and don't get, as `pip check` does."""
    for package in _WATCHED:
        for line in _requires(package):
            found = _NAME.match(line)
            if not found or ";" in line or not (there := _version(found[1])):
                continue  # with a condition, or not installed: `missing` tells
            if not fits(there, found[2]):
                asked = f"{found[1]}{found[2].strip()}"
                what = f"{package} {_version(package)} needs {asked}, and {there} is installed"
                yield {"what": what, "mend": f"pip install '{asked}'"}


def _requires(package: str) -> list[str]:
    try:
        return requires(package) or []
    except PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
