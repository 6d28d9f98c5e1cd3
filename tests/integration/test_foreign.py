"""A stage and a ranking model of another package in the real loop: run, changed, run alone, planned, described."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from tests.integration.test_loop import taiji
from tests.pipeline.foreign import RANKER, STAGE, write_module
from tests.tiny import configuration

from taiji.core.artifacts import read_json
from taiji.pipeline.recipes import STAGE_NAMES


@pytest.fixture(scope="module")
def folder(shop, model_folder, tmp_path_factory):
    """Folder of the module, the configuration that names it, and its finished run."""
    folder = write_module(tmp_path_factory.mktemp("foreign"))
    values = configuration(shop, model_folder)
    values |= {"stages": [STAGE], "price_bands": {"bands": 4}, "ranking": {"model": RANKER, "smoothing": 2.0}}
    (folder / "foreign.yaml").write_text(yaml.safe_dump(values))
    done = taiji("run", "foreign.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"/{len(STAGE_NAMES) + 1}] price_bands: Cut the catalogue into bands of price." in done.stderr
    return folder


def test_both_leave_artefacts_and_their_settings(folder):
    run = folder / "runs" / "foreign"
    assert read_json(run / "bands.json") == [15, 15, 15, 15] == read_json(run / "price_bands" / "bands.json")
    manifest = read_json(run / "price_bands" / "manifest.json")
    assert manifest["settings"] == {"price_bands": {"bands": 4, "column": "price"}}
    assert set(manifest["inputs"]) == {"data"} and manifest["facts"] == {"bands": 4}
    stored = read_json(run / "config.json")
    assert stored["stages"] == [STAGE] and stored["price_bands"]["bands"] == 4
    assert stored["ranking"] == {"model": RANKER, "smoothing": 2.0}
    assert (run / "ranking" / "taiji" / "config.json").exists() and (run / "report.html").exists()
    assert {row["features"] for row in read_json(run / "metrics.json")["ranking"]} == {"none", "history_mean", "taiji"}


def test_changed_settings_run_that_stage_again_and_no_other(folder):
    done = taiji("run", "foreign.yaml", "--resume", "--set", "price_bands.bands=5", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unchanged, skipped") == len(STAGE_NAMES)
    assert read_json(folder / "runs" / "foreign" / "bands.json") == [12] * 5
    alone = taiji("stage", "price_bands", "foreign.yaml", cwd=folder)
    assert alone.returncode == 0 and "[1/1] price_bands: done" in alone.stderr, alone.stderr
    assert read_json(folder / "runs" / "foreign" / "bands.json") == [15] * 4
    again = taiji("stage", "price_bands", "--name", "foreign", cwd=folder)
    assert "[1/1] price_bands: unchanged, skipped" in again.stderr
    unknown = taiji("stage", "price_band", "--name", "foreign", cwd=folder)
    assert unknown.returncode == 2 and "price_bands" in unknown.stderr and "Traceback" not in unknown.stderr
    first = taiji("stage", "price_bands", "foreign.yaml", "--name", "new", cwd=folder)
    assert first.returncode == 2 and "taiji data --name new" in first.stderr


def test_a_study_trains_the_model_that_the_run_names(folder):
    done = taiji(
        "study", "runs/foreign", "--seeds", 1, "--arm", "history_mean", "--arm", "popo", "--json", "-", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    values = {
        row["value"]
        for row in json.loads(done.stdout)["rows"]
        if row["metric"] == "click auc" and row["group"] == "all"
    }
    assert len(values) == 1, "it looks at no features"


def test_the_inspector_lists_the_stage(folder, monkeypatch):
    from taiji.inspector.run_view import RunFiles

    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("shop_parts", None)  # another test of this process may have imported one of that name
    states = {state.name: state for state in RunFiles(folder / "runs" / "foreign").stages}
    assert list(states)[:2] == ["data", "price_bands"] and states["price_bands"].facts == {"bands": 4}
    sys.modules.pop("shop_parts", None)


def test_plan_and_description_know_the_stage(folder):
    said = taiji("plan", "foreign.yaml", "--users", 400, "--measured", "runs/foreign", "--json", "-", cwd=folder)
    assert said.returncode == 0, said.stderr
    lines = {cost["stage"]: cost for cost in json.loads(said.stdout)["stages"]}
    assert lines["price_bands"]["rows"] == 4 * 60 and lines["price_bands"]["seconds"] > 0
    described = taiji("config", "foreign.yaml", "--describe", cwd=folder)
    assert "## `price_bands`" in described.stdout and "`smoothing` | `1.0`" in described.stdout
    mistyped = taiji("config", "foreign.yaml", "--set", "price_bands.bnds=2", cwd=folder)
    assert mistyped.returncode == 2 and "did you mean 'bands'" in mistyped.stderr
    missing = taiji("config", folder / "foreign.yaml", cwd=folder.parent)
    assert missing.returncode == 2 and "shop_parts" in missing.stderr and "Traceback" not in missing.stderr
