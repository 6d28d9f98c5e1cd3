"""The room's benchmark in its quick form, so that it does not rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.inspector.browser import executable


@pytest.mark.slow
@pytest.mark.skipif(executable() is None, reason="no Chromium on this machine; `make tools` installs one where it may")
def test_quick_run_measures_every_interaction(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.inspector", "--quick", "--json", str(tmp_path / "out.json")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode in (0, 1), (
        done.stdout[-3000:] + done.stderr[-3000:]
    )  # a ratio of single milliseconds may stray on a busy machine
    written = json.loads((tmp_path / "out.json").read_text())
    assert len(written["checks"]) == 3
    assert {"search words", "another step", "open /users"} <= {row["what"] for row in written["rows"]}
