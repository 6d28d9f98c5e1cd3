"""Runs a benchmark in its quick form, so that none rots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def always(check: str) -> bool:
    """Every check must hold."""
    return True


def run_quick(
    name: str,
    folder: Path,
    *,
    arguments: Sequence[str] = (),
    must_hold: Callable[[str], bool] = always,
    public_data: bool = False,
) -> dict[str, Any]:
    """Run ``python -m benchmarks.NAME --quick`` and return what it wrote.

    Args:
        name: of the benchmark.
        folder: where its JSON goes.
        arguments: its own, beside ``--quick``.
        must_hold: which checks, by name, have to hold; the others may fail by chance or beside other tests.
        public_data: let it see the public datasets; without, it must do with what it makes.
    """
    environment = {key: value for key, value in os.environ.items() if public_data or key != "TAIJI_TEST_DATA"}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", *arguments, "--json", str(folder / "out.json")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout[-3000:] + done.stderr[-3000:]
    assert done.returncode in ((0,) if must_hold is always else (0, 1)), said
    written: dict[str, Any] = json.loads((folder / "out.json").read_text())
    assert written["rows"] and (written["checks"] or must_hold is not always), said
    failed = [check["name"] for check in written["checks"] if not check["holds"] and must_hold(check["name"])]
    assert not failed, said
    return written
