"""Ctrl-C after several OpenVINO sessions came and went, in a process of its own."""

import subprocess
import sys

import pytest

from fettle.testing import sample

pytest.importorskip("openvino")

SCRIPT = """
import signal, sys
from pathlib import Path
from fettle.runtimes.openvino import OpenVino
sessions = [OpenVino(threads=1).build(Path(sys.argv[1])) for _ in range(3)]
for session in sessions:  # first in, first out
    session.close()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_sessions_were_closed_in_the_order_they_came():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(sample().master)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr
