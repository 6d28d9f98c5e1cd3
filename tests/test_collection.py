"""Collection gives the same ids whenever and wherever it runs: two workers that differ in one end a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import pytest_make_parametrize_id

ROOT = Path(__file__).parent.parent


def collecting(seed: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONHASHSEED": seed}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow  # pytest-xdist compares the workers of every whole run
def test_ids_depend_on_neither_the_clock_nor_the_hash_seed():
    first = collecting("1")
    time.sleep(1.5)  # the two have no second in common
    second = collecting("2")
    ids = []
    for process in (first, second):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-3000:]
        ids.append([line for line in output.splitlines() if "::" in line])
    assert len(ids[0]) == len(set(ids[0])) > 1000
    assert ids[0] == ids[1], next(pair for pair in zip(*ids) if pair[0] != pair[1])


@pytest.mark.parametrize("value", [b"", 0.5], ids=["bytes", "float"])
def test_bytes_and_floats_need_an_id_of_their_own(pytestconfig, value):
    with pytest.raises(pytest.UsageError, match="explicit id"):
        pytest_make_parametrize_id(pytestconfig, value, "value")
    assert pytest_make_parametrize_id(pytestconfig, "text", "value") is None
