"""The shape of the house: imports go one way, modules stay small, light modules stay light, nothing is pickled."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "taiji").rglob("*.py"))
HEAVY = ("torch", "transformers", "trl", "faiss", "plotly", "polars", "datasets")


def test_imports_go_one_way():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src" / "taiji")))
def test_no_module_is_over_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_nothing_is_pickled():
    guilty = [
        p for p in SOURCES if re.search(r"\bimport pickle|torch\.save\(|joblib\.dump|allow_pickle=True", p.read_text())
    ]
    assert not guilty


def test_help_and_configuration_load_without_heavy_packages():
    code = (
        "import sys, taiji.cli, taiji.config, taiji.pipeline.recipes\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_test_module_mirrors_a_source_module():
    rooms = {p.name for p in (ROOT / "src" / "taiji").iterdir() if p.is_dir() and p.name != "presets"}
    for room in sorted(rooms & {p.name for p in (ROOT / "tests").iterdir()}):
        for test in (ROOT / "tests" / room).rglob("test_*.py"):
            stem = test.stem.removeprefix("test_")
            sources = {p.stem for p in (ROOT / "src" / "taiji" / room).rglob("*")}
            if stem == "benchmarks":
                continue  # runs the benchmarks of its room
            assert any(stem == source or stem.startswith(f"{source}_") for source in sources), (
                f"{test} mirrors no module of {room}"
            )
