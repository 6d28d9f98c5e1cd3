"""Does a study of features find a gain where there is one and none in its negative controls, and can it be continued?

A study trains the ranker for several *arms* (sets of features) with several seeds. One training is a *cell*, whose
result is stored. In the synthetic shop, titles carry the hidden tastes. Arms (column ``features``): ``none``; ``text``,
features computed from the mean text vector of the user's history just before each request; ``text, intra-user only``
(the user's own quantised ids) and ``text, cross-user only`` (items of the look-alike, the most similar other user); and
two negative controls, with another user's features and with shuffled ones. All arms have the same rows, ranker settings
and seeds (five; two in a quick run).

Columns: ``data``, ``group`` of the test rows, ``metric`` and its ``value``, the mean over ``seeds``; ``minus none``
with ``low, none`` and ``high, none``, the difference from the ranker without features with its 95 % interval over users
and seeds. For each further competitor of a finished run, there are three more such columns.

Checks: ``text`` improves the click AUC (full run), no negative control does, and when a third of the cells are deleted
and the study is run again, only these are trained again, and all metrics stay the same.

If STUDY_RUN names the folder of a finished run, ``taiji study`` is run on it as well, and its table is added. On its
data, only the negative controls are checked: a gain of the features themselves is reported, but not required.

    [STUDY_RUN=runs/NAME] python -m benchmarks.study [--quick] [--json benchmarks/results/study.json]
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from taiji.data.dataset import Dataset
from taiji.experiments.simulate import text_features, train_and_test
from taiji.experiments.study import ablation, aggregate, built_in, control_findings, run_cells
from taiji.models.ranking.settings import RankerSettings
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop

METRICS = ("click auc", "click log_loss", "ctcvr auc", "ctcvr log_loss")
QUICK_SHOP: dict[str, Any] = {"users": 400, "tail": 1500, "days": 60}
QUICK_RANKER = RankerSettings(min_steps=60, hidden=(32,))
MAIN = "text"


def measure(quick: bool) -> Result:
    """Run the study of the shop, and that of a finished run if one is named."""
    result = Result()
    seeds = 2 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        sizes, ranker = (QUICK_SHOP, QUICK_RANKER) if quick else ({}, RankerSettings())
        shop(result, Path(folder), seeds, sizes, ranker, resamples=100 if quick else 1000)
    if os.environ.get("STUDY_RUN") and not quick:
        of_run(result, Path(os.environ["STUDY_RUN"]), seeds)
    return result


def shop(
    result: Result, folder: Path, seeds: int, sizes: dict[str, Any], ranker: RankerSettings, resamples: int
) -> None:
    """Run the study of the synthetic shop, then once more with a third of its cells deleted."""
    dataset = Dataset.from_tables(Shop(ShopSettings(**sizes), 0).tables())
    train, test, cut = train_and_test(dataset)
    arms = ablation({MAIN: text_features(dataset, cut, seed=0)}, MAIN)
    trainer, version = built_in(dataset, ranker)
    trained: list[int] = []

    def counted(exposures: pl.DataFrame, seed: int) -> Any:
        trained.append(seed)
        return trainer(exposures, seed)

    def judged() -> list[dict[str, Any]]:
        cells = run_cells(train, test, arms, range(seeds), counted, folder, trainer_version=version)
        return aggregate(cells, folder, test, competitors=(), resamples=resamples)

    rows = judged()
    whole, lost = len(trained), sorted(folder.glob("*.json"))[::3]
    for path in lost:
        path.unlink()
    again = judged()
    result.at_most(
        "difference between the cells trained again and those deleted", abs(len(trained) - whole - len(lost)), 0
    )
    result.at_most(
        "rows that differ after the study was continued", sum(a != b for a, b in zip(rows, again, strict=True)), 0
    )
    add(result, "shop", rows)
    gain = next(r for r in rows if (r["features"], r["group"], r["metric"]) == (MAIN, "all", "click auc"))["difference"]
    if seeds >= 5:  # with fewer seeds and a smaller shop, no gain is required
        result.at_least("shop: low end of the click AUC gain", gain["low"], 1e-9)
    no_gain(result, "shop", rows)


def of_run(result: Result, folder: Path, seeds: int) -> None:
    """Run ``taiji study`` on a finished run, and add its rows."""
    from taiji.config import load_config
    from taiji.pipeline.run_study import study

    found = study(folder, load_config(folder / "config.json"), seeds)
    add(result, found["data"], found["rows"])
    no_gain(result, found["data"], found["rows"])


def add(
    result: Result, data: str, rows: list[dict[str, Any]], metrics: tuple[str, ...] = METRICS, **about: str
) -> None:
    """Add a row for every arm, group and metric, with its differences. ``about`` has further columns."""
    for row in rows:
        if row["metric"] not in metrics or row["value"] is None:
            continue
        flat = {
            "data": data,
            **about,
            "group": row["group"],
            "features": row["features"],
            "metric": row["metric"],
            "value": row["value"],
            "seeds": row["seeds"],
        }
        for name, gap in [
            ("none", row.get("difference")),
            *((gap["against"], gap) for gap in row.get("competitors", [])),
        ]:
            if gap:
                flat |= {f"minus {name}": gap["value"], f"low, {name}": gap["low"], f"high, {name}": gap["high"]}
        result.rows.append(flat)


def no_gain(result: Result, data: str, rows: list[dict[str, Any]]) -> None:
    """Check that no negative control shows a gain in click AUC."""
    for control in control_findings(rows):
        if control["metric"] == "click auc":
            result.at_most(f"{data}: {control['arm']} shows a gain (0: no)", float(np.float64(control["gain"])), 0)


if __name__ == "__main__":
    run(measure)
