"""Requests that schemathesis makes of our own description: each is answered as described."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve.http.whole import serving

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


@pytest.mark.slow
def test_all_that_the_description_allows_is_answered_as_described(proven, tmp_path):
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("schemathesis is not in this environment")
    with serving([f"m={proven.path}"], log=tmp_path / "p.db") as run:
        words = ["run", f"{run.server.url}/openapi.json", "--max-examples", "5", "--seed", "6",
                 "--checks", CHECKS, "--exclude-path-regex", "unload"]  # fmt: skip
        done = subprocess.run(
            [program, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert run.talk(b"GET /v2/health/ready HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert done.returncode == 0, done.stdout[-3000:]
