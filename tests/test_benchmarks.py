"""Every benchmark still imports and says what it takes, also those whose quick form takes minutes
(`make test-slow`)."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
CHILDREN = {"scale_child", "sequential_peer"}
"""Modules that only another benchmark starts."""
COMMANDS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if path.stem not in CHILDREN and '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


def test_there_are_benchmarks():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("name", COMMANDS)
def test_it_starts_and_says_what_it_takes(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    assert not ended.value.code
    assert "--json" in capsys.readouterr().out


def test_an_error_of_the_user_is_one_message(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["uplift", "--data", "nowhere"])
    monkeypatch.delitem(sys.modules, "benchmarks.uplift", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.uplift", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    assert "where: nowhere" in capsys.readouterr().err
