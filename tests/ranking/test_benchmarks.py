"""The room's benchmarks in their quick form, so that none rots."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
@pytest.mark.parametrize(("name", "needs"), [("ranking", ("torch_rechub", "lightgbm")), ("ranking_stream", ())])
def test_quick_run_holds_its_checks(name, needs, tmp_path):
    for package in needs:
        pytest.importorskip(package)
    environment = {key: value for key, value in os.environ.items() if key != "TAIJI_TEST_DATA"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["checks"] and all(check["holds"] for check in written["checks"]) and written["rows"]
