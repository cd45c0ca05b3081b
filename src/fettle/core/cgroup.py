"""What the control group that this process lives in allows it: a container's share of processors.

Both versions of the kernel's interface are read. A limit may be set at any folder from the process
up to the root of what is visible, and the tightest holds.

Reference: Linux, `Documentation/admin-guide/cgroup-v2.rst` (`cpu.max`, `cpu.stat`) and
`Documentation/scheduler/sched-bwc.rst` (version 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many processors' time this process may use, or None without a limit."""
    found = [quota for folder in _folders(root) if (quota := _quota_in(folder)) is not None]
    return min(found, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Return how many bytes the group may hold, or None without a limit."""
    found = []
    for folder in _folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = text_of(folder / name)
            if text.isdigit() and int(text) < 1 << 60:  # version 1 says 2 ** 63 for none
                found.append(int(text))
    return min(found, default=None)


def throttled_periods(root: Path = ROOT) -> int | None:
    """Return in how many periods the group was stopped at its quota, or None if untold."""
    found = []
    for folder in _folders(root):
        words = text_of(folder / "cpu.stat").split()
        found += [int(n) for key, n in zip(words[::2], words[1::2], strict=False)
                  if key == "nr_throttled"]  # fmt: skip
    return max(found, default=None)


def text_of(path: Path) -> str:
    """Return what a small file of the kernel holds, stripped; nothing where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _quota_in(folder: Path) -> float | None:
    text = text_of(folder / "cpu.max") or " ".join(
        text_of(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
    )
    words = text.split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):
        return None  # "max", and -1 in version 1
    return int(words[0]) / int(words[1]) or None


def _folders(root: Path, controller: str = "cpu") -> Iterator[Path]:
    """Yield the folders of this process' group and of those above it, for both versions."""
    mount = root / "sys/fs/cgroup"
    for line in text_of(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, inner = parts
        if not controllers:
            yield from _upwards(mount, inner)
        elif controller in controllers.split(","):
            for name in (controllers, controller):
                if (mount / name).is_dir():
                    yield from _upwards(mount / name, inner)
                    break


def _upwards(top: Path, inner: str) -> Iterator[Path]:
    """Yield the folder `inner` of `top` and each one above it, down to `top` itself.

    Inside of a container `inner` may name a folder of the host that isn't visible: then only `top`
    answers.
    """
    parts = [part for part in PurePosixPath(inner).parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:count])
