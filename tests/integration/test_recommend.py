"""`taiji recommend`: from a log to fitted components, their worth and their cost, resumed and skipped like every run."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.integration.test_loop import command, environment, taiji
from tests.tiny import write_shop

from taiji.core.artifacts import read_json

RETRIEVERS = {
    "popular": {"model": "popularity", "half_life_days": 7},
    "together": {"model": "cooccurrence"},
    "sasrec": {"model": "sasrec", "width": 8, "layers": 1, "epochs": 2, "history": 10, "negatives": 0},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recommend")
    values = {
        "data": {"source": str(write_shop(folder / "shop"))},
        "ranking": {"epochs": 1, "min_steps": 10, "dimension": 4, "hidden": [8]},
        "recommend": {"retrievers": RETRIEVERS, "depths": [5, 20], "length": 5, "most_per_category": 2},
        "evaluation": {"resamples": 50},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(values))
    return folder / "shop.yaml"


def files(run: Path) -> dict[str, bytes]:
    """Artefacts without times: the manifests' seconds and the milliseconds of a step are the machine's."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "recommendation.json", "recommendation.html")
    }


def test_one_command_from_a_log_to_a_recommender(config, tmp_path):
    done = taiji("recommend", config, "--name", "shop", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_json(tmp_path / "shop" / "recommendation.json")
    arms = {row["arm"] for row in found["lists"]}
    assert {"all components", *(f"without {name}" for name in RETRIEVERS), "without the ranker"} <= arms
    assert {row["arm"] for row in found["retrieval"]} == {*RETRIEVERS, "merged", "ranked"}
    assert not found["new_items_only"], "a shop whose users come back for the same things keeps them"
    assert "Retrieval, with" in done.stdout and "milliseconds per request" in done.stdout
    before = files(tmp_path / "shop")
    again = taiji("recommend", config, "--name", "shop", "--runs", tmp_path, "--resume")
    assert again.returncode == 0 and again.stderr.count("unchanged, skipped") == 7, again.stderr
    assert files(tmp_path / "shop") == before

    other = taiji("recommend", config, "--name", "other", "--runs", tmp_path, "--quiet")
    assert other.returncode == 0
    assert files(tmp_path / "other") == before, "the same configuration gave other bytes"
    without = read_json(tmp_path / "other" / "recommendation.json")
    del found["milliseconds"], without["milliseconds"]
    assert without == found


def test_what_is_wrong_is_said_before_anything_runs(config, tmp_path):
    wrong = ["--set", "recommend.retrievers={'A b': {'model': 'popularity'}}"]
    done = taiji("recommend", config, "--name", "shop", "--runs", tmp_path, *wrong)
    assert done.returncode == 2 and "cannot be called so" in done.stderr and not (tmp_path / "shop" / "data").exists()
    wrong = ["--set", "recommend.retrievers={'sasrec': {'half_live': 3}}"]
    done = taiji("recommend", config, "--name", "shop", "--runs", tmp_path, *wrong)
    assert done.returncode == 2 and "half_live" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "shop" / "data").exists()


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_in_the_same_bytes(config, tmp_path):
    assert taiji("recommend", config, "--name", "whole", "--runs", tmp_path).returncode == 0
    fitting = [*(f"retriever-{name}" for name in RETRIEVERS), "candidate_ranker"]
    stages = ["data", *fitting, "recommendation", "recommend_report"]
    for stage in stages:
        process = subprocess.Popen(
            command("recommend", config, "--name", "killed", "--runs", tmp_path, "--resume"),
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stderr is not None
        for line in process.stderr:
            if f"] {stage}:" in line and "done" not in line:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        assert process.returncode == -signal.SIGKILL, f"{stage} was over before it could be killed"
    done = taiji("recommend", config, "--name", "killed", "--runs", tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
