"""The GPU acceptance runs to its end without a GPU, and what goes along to a GPU machine is complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tools.gpu import pack

ROOT = Path(__file__).parent.parent
PARTS = ("attention", "agreement", "popo", "looks", "rankers", "retrievers", "steps")


def test_the_script_runs_on_a_processor(tmp_path):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tools.gpu.acceptance", "--quick", "--json", str(tmp_path / "gpu.json"), "--parts"]
    done = subprocess.run([*command, *PARTS], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["part"] for row in written["rows"]} >= {
        "card",
        "attention",
        "agreement",
        "popo",
        "host looks",
        "ranker",
        "step",
    }
    assert all(check["holds"] for check in written["checks"])


def test_the_pack_is_complete():
    assert pack.missing() == {}


def test_a_pack_that_lacks_something_says_who_needs_it():
    assert pack.missing(frozenset(pack.PACKED) - {"pydantic-core"}) == {"pydantic-core": "pydantic"}
