"""Run every benchmark of this folder and write dated results.

python benchmarks/run.py [NAME…]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the named benchmarks, or all; return how many failed."""
    found = (path.stem for path in HERE.glob("*.py"))
    wanted = sys.argv[1:] or sorted(n for n in found if n != "run" and n[0] != "_")
    return sum(subprocess.call([sys.executable, HERE / f"{name}.py"]) != 0 for name in wanted)


if __name__ == "__main__":
    sys.exit(main())
