"""The guide's parts, installed as a package of their own: found by name, checked as ours are, run in the loop and in a
study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tests.pages import blocks
from tests.tiny import configuration, write_model, write_shop

from taiji.core.artifacts import read_json

ROOT = Path(__file__).parent.parent
PARTS = ROOT / "examples" / "extending"
FILES = sorted((PARTS / "shop_parts").glob("[!_]*.py"))
GUIDE = ROOT / "docs" / "extending.md"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_guide_shows_the_file_and_it_is_short(path):
    shown = {block.name: block.text for block in blocks(GUIDE) if block.name}
    assert shown[f"shop_parts/{path.name}"] == path.read_text()
    assert len(path.read_text().splitlines()) <= 60


def test_the_guide_shows_the_entry_points():
    shown = {block.name: block.text for block in blocks(GUIDE)}
    toml = (PARTS / "pyproject.toml").read_text()
    for group in ("fields", "mechanisms", "rankers", "retrievers", "stages", "sources"):
        assert re.search(rf'entry-points\."taiji\.{group}"\]\n(.+)\n', toml)[1] in GUIDE.read_text()
    assert "mapping.yaml" in shown


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Folder in which the package is installed, with its entry points."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        folder,
    ]
    copy = tmp_path_factory.mktemp("source") / "extending"
    subprocess.run(["cp", "-r", PARTS, copy], check=True)  # building leaves files beside the source
    subprocess.run([*command, copy], check=True, capture_output=True)
    return folder


def run(site: Path, cwd: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run taiji, or Python on a script, with the package installed."""
    path = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def test_parts_pass_the_inherited_checks(installed, tmp_path):
    script = tmp_path / "check.py"
    script.write_text(
        """
from shop_parts.factorization_machine import FactorizationMachine
from shop_parts.hour_field import HourOfDay
from shop_parts.same_category import SameCategory
from shop_parts.same_start import SameStart
from shop_parts.trending import Trending
from taiji.core.component import Requests
from taiji.data.fields import make_field
from taiji.models.ranking.ranker import ranker_class
from taiji.models.retrieval.retriever import retriever_class
from taiji.testing import *
from taiji.world import Scenario, World

board = checkerboard()
made = FactorizationMachine(FactorizationMachine.Settings(min_steps=400, device="cpu", fields=("hour",)))
ranker = made.fit(board, exposures_of(board), seed=0)
check_scorer(ranker, board)
check_learns_checkerboard(ranker, board)
check_component(ranker, board, lambda r: r.predict(exposures_of(board))["click"].to_numpy())
check_retriever(Trending(board), board)
check_retriever(SameStart().fit(board), board)
check_component(SameStart().fit(board), board, lambda r: r.retrieve(Requests([0, 1], [10**18] * 2), 5).items)
assert retriever_class("same_start") is SameStart
check_field(HourOfDay(), board, exposures_of(board))
check_field(SameCategory(), board, exposures_of(board))
assert ranker.layout.row.columns == (1,) and ranker_class("factorization_machine") is FactorizationMachine
assert isinstance(make_field("hour", "here"), HourOfDay)
rainy = Scenario(users=60, items=60, slate=3, candidates=10, mechanisms={"content": {}, "weather": {}})
check_world(lambda seed: World(rainy, seed), draws=1000)
"""
    )
    run(installed, tmp_path, script)


def write_lines(folder: Path, shop: Path) -> Path:
    """Write a tiny shop as JSON lines, with watched seconds that say what a click does, and a screen."""
    random = np.random.default_rng(0)
    items, log = pl.read_csv(shop / "items.csv"), pl.read_csv(shop / "log.csv")
    folder.mkdir()
    items.select(
        item_id="sku", title="name", category_l1="aisle", category_l2="shelf", price=pl.col("price")
    ).write_ndjson(folder / "items.jsonl")
    log.select(user_id="who").unique().sort("user_id").write_ndjson(folder / "users.jsonl")
    liked = log["bought"].to_numpy() == 1
    log.select(user_id="who", item_id="what", timestamp="at", click="bought", conversion="again").with_columns(
        watch_seconds=pl.Series(random.exponential(np.where(liked, 90.0, 8.0))),
        screen=pl.Series(random.choice(["phone", "tv"], len(log))),
    ).write_ndjson(folder / "events.jsonl")
    return folder


@pytest.mark.integration
def test_all_of_them_run_in_the_loop_and_in_a_study(installed, tmp_path):
    shop = write_shop(tmp_path / "csv")
    values = configuration(shop, write_model(tmp_path / "model"))
    values |= {
        "data": {"source": f"json-lines:{write_lines(tmp_path / 'lines', shop)}"},
        "stages": ["recall"],
        "recall": {"k": 5},
        "ranking": {
            "model": "factorization_machine",
            "fields": ["hour"],
            "pair_fields": ["same_category"],
            "min_steps": 20,
        },
    }
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "check.py").write_text(
        "from shop_parts.json_lines import JsonLines\nfrom taiji.testing import check_source\ncheck_source(JsonLines('lines'))"
    )
    run(installed, tmp_path, tmp_path / "check.py")
    run(installed, tmp_path, "-m", "taiji.cli", "run", "shop.yaml")
    folder = tmp_path / "runs" / "shop"
    assert 0 <= read_json(folder / "recall.json")["recall"] <= 1 and read_json(folder / "recall.json")["k"] == 5
    ranker = read_json(folder / "ranking" / "taiji" / "config.json")
    assert ranker["class"] == "shop_parts.factorization_machine:FactorizationMachine"
    assert "shop_parts.hour_field:HourOfDay" in [field["reference"] for field in ranker["fields"]]
    assert "shop_parts.same_category:SameCategory" in [field["reference"] for field in ranker["fields"]]
    assert ["screen"] in [field["options"].get("column") for field in ranker["fields"]]
    metrics = {row["metric"] for row in read_json(folder / "metrics.json")["ranking"]}
    assert any(name.startswith("watch_seconds ") for name in metrics), sorted(metrics)
    assert "watch seconds" in (folder / "report.html").read_text()
    run(installed, tmp_path, "-m", "taiji.cli", "study", "runs/shop", "--seeds", "1", "--arm", "history_mean")
    planned = run(installed, tmp_path, "-m", "taiji.cli", "plan", "shop.yaml", "--measured", "runs/shop", "--json", "-")
    assert "recall" in json.dumps(json.loads(planned.stdout))
    described = run(installed, tmp_path, "-m", "taiji.cli", "config", "--describe", "shop.yaml").stdout
    assert "Candidates per request." in described and "Number of factors per embedding" in described


@pytest.mark.integration
def test_three_lines_of_mapping_give_a_head_its_metrics_and_its_row_in_the_report(tmp_path):
    shop = write_shop(tmp_path / "csv")
    log = pl.read_csv(shop / "log.csv")
    watched = np.random.default_rng(0).exponential(np.where(log["bought"].to_numpy() == 1, 90.0, 8.0))
    log.with_columns(watch_seconds=pl.Series(watched)).write_csv(shop / "log.csv")
    lines = next(block.text for block in blocks(GUIDE) if block.name == "mapping.yaml").splitlines()
    start = lines.index("  labels:")
    (shop / "mapping.yaml").write_text("\n".join([(shop / "mapping.yaml").read_text(), *lines[start : start + 3], ""]))
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(configuration(shop, write_model(tmp_path / "model"))))
    run(tmp_path, tmp_path, "-m", "taiji.cli", "run", "shop.yaml")
    folder = tmp_path / "runs" / "shop"
    heads = pl.read_parquet(folder / "ranking" / "predictions-taiji.parquet").columns
    metrics = {row["metric"] for row in read_json(folder / "metrics.json")["ranking"]}
    assert "watch_seconds" in heads and any(name.startswith("watch_seconds ") for name in metrics)
    assert "watch seconds" in (folder / "report.html").read_text()
