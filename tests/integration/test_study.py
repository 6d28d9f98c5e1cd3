"""`taiji study` on a finished run: tables of other models, cells that stay, negative controls, broken input."""

from __future__ import annotations

import subprocess

import pytest
from tests.integration.test_loop import taiji

from taiji.core.artifacts import file_hash, read_json

ARMS = (
    "--arm",
    "history_mean",
    "--arm",
    "truth",
    "--arm",
    "base",
    "--arm",
    "sft",
    "--arm",
    "popo-light",
    "--arm",
    "popo",
)


def study(run, *more) -> subprocess.CompletedProcess:
    return taiji("study", run, "--seeds", 2, *ARMS, "--set", "evaluation.resamples=20", *more)


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    done = taiji("run", small_config, "--name", "small", "--runs", folder, "--quiet")
    assert done.returncode == 0, done.stderr
    return folder / "small"


def test_arms_cells_groups_controls_and_going_on(run, tmp_path):
    stages = {path: file_hash(path) for path in run.iterdir() if path.is_dir() and path.name != ".work"}
    first = study(run, "--json", tmp_path / "study.json")
    assert first.returncode == 0, first.stderr
    found = read_json(tmp_path / "study.json")
    assert found == read_json(run / "study" / "study.json")
    tables = ["history_mean", "truth", "base", "sft", "popo-light", "popo"]
    parts = [
        "popo, intra-user only",
        "popo, cross-user only",
        "negative control: another user's",
        "negative control: shuffled",
    ]
    assert found["arms"] == ["none", *tables, *parts]
    assert found["main"] == "popo"
    assert len(found["cells"]) == 2 * len(found["arms"])
    groups = {row["group"] for row in found["rows"]}
    assert {"all", "sparse"} <= groups and any(group.startswith("department aisle") for group in groups)
    metrics = {row["metric"] for row in found["rows"]}
    assert {"click auc", "click log_loss", "ctcvr auc", "ctcvr log_loss"} <= metrics
    assert all(row["seeds"] == 2 for row in found["rows"])
    popo = next(row for row in found["rows"] if row["features"] == "popo" and row["metric"] == "click auc")
    assert popo["difference"]["against"] == "none" and popo["competitors"][0]["against"] == "history_mean"
    assert {line["arm"] for line in found["controls"]} == {
        "negative control: another user's",
        "negative control: shuffled",
    }
    for shown in ("popo, intra-user only", "negative control: shuffled", "2 training runs"):
        assert shown in first.stdout
    assert {path: file_hash(path) for path in stages} == stages, "the run itself stays as it is"
    assert (
        read_json(run / "study/stages/alignment-popo-light/manifest.json")["settings"]["alignment"]["weighting"]
        == "popo-light"
    )

    cells = sorted((run / "study" / "cells").glob("*.json"))
    cells[3].unlink()
    made = {path: path.stat().st_mtime_ns for path in cells if path.exists()}
    again = study(run)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("unchanged, skipped") == 4, "alignment once, features three times"
    assert {path: path.stat().st_mtime_ns for path in made} == made
    same = read_json(run / "study" / "study.json")
    assert same["rows"] == found["rows"]


def test_wrong_input_gets_one_message(run, tmp_path):
    unknown = taiji("study", run, "--arm", "poppo")
    assert unknown.returncode == 2 and "poppo" in unknown.stderr and "popo-light" in unknown.stderr
    none = taiji("study", tmp_path)
    assert none.returncode == 2 and "not a run directory" in none.stderr
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    unfinished = taiji("study", tmp_path)
    assert unfinished.returncode == 2 and "--resume" in unfinished.stderr and "Traceback" not in unfinished.stderr
