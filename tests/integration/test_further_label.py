"""Three lines of mapping give a label its trained head, its metrics, its rows in the report, and its place in the
inspector."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import yaml
from tests.integration.test_loop import taiji
from tests.tiny import configuration, write_shop

from taiji.core.artifacts import read_json
from taiji.inspector.compare import compare
from taiji.inspector.run_view import RunFiles

pytestmark = pytest.mark.integration
LABEL = """\
  labels:
    watch_seconds:
      kind: duration
"""


def test_a_declared_label_is_learnt_and_shown(tmp_path, model_folder):
    shop = write_shop(tmp_path / "shop")
    log = pl.read_csv(shop / "log.csv")
    seconds = np.random.default_rng(1).exponential(30, len(log)) * log["bought"].to_numpy()
    log.with_columns(watch_seconds=pl.Series(seconds).round(1)).write_csv(shop / "log.csv")
    mapping = (shop / "mapping.yaml").read_text()
    (shop / "mapping.yaml").write_text(mapping + LABEL)
    config = tmp_path / "label.yaml"
    config.write_text(yaml.safe_dump(configuration(shop, model_folder)))
    done = taiji("run", config, "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "label"
    for arm in ("none", "history_mean", "taiji"):
        predicted = pl.read_parquet(run / "ranking" / f"predictions-{arm}.parquet")["watch_seconds"].to_numpy()
        assert (predicted >= 0).all() and predicted.std() > 0
    found = {row["metric"]: row for row in read_json(run / "metrics.json")["ranking"] if row["features"] == "taiji"}
    assert {"click auc", "ctcvr auc", "watch_seconds xauc", "watch_seconds mae", "watch_seconds rmse"} <= set(found)
    assert found["watch_seconds xauc"]["value"] > 0.5
    assert 0.3 < found["watch_seconds calibration"]["value"] < 3
    assert "watch seconds" in (run / "report.html").read_text()
    assert "watch seconds" in done.stdout
    files = RunFiles(run)
    titles = [group["title"] for group in compare(files, files)["groups"]]
    assert "Mean absolute error, watch seconds, all users" in titles
    assert {"watch_seconds none", "watch_seconds taiji"} <= set(files.judged.frame.columns)
