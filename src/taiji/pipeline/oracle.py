"""`taiji oracle`: what a language model could add to the ranker at most, known before one is run.

The item that a user takes next stands where an answer would: features of a model that is always right, beside the baseline
that needs no model. What the truth does not gain, no answer made at those times can.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taiji.core.artifacts import write_json
from taiji.core.number_format import number_text
from taiji.data import Dataset
from taiji.experiments.study import NEGATIVE_CONTROL, Arm, shuffled
from taiji.features.feature_table import fit_table
from taiji.features.history_mean import future_mean, history_mean
from taiji.language.embed import load_embedder
from taiji.pipeline.refreshes import refresh_times
from taiji.pipeline.run_study import COMPETITOR, ORACLE_ARM, evaluated, print_study, split_at
from taiji.reasoning.prompts import item_lines

if TYPE_CHECKING:
    from taiji.config import Config

BREADTH = 10
WIDE_ORACLE_ARM = f"{ORACLE_ARM}, next {BREADTH}"
"""The mean of the next items, known to the user or not: what a whole taste would be worth rather than one item."""


def oracle(run: Path, config: Config, seeds: int) -> dict[str, Any]:
    """Compare no features, the mean of the history, and the truth, for everybody with a history.

    Args:
        run: a run directory whose stages data and examples are done.
        config: how often rows are made (``size.feature_refreshes``), the target, the ranker.
        seeds: trainings per arm.

    Returns:
        what :func:`taiji.pipeline.run_study.evaluated` returns; also in ``oracle/oracle.json``.
    """
    folder, dataset, split = (
        run / "oracle",
        Dataset.load(run / "data" / "dataset"),
        split_at(run / "examples" / "split.json"),
    )
    rows = refresh_times(dataset, split, config.examples.min_history, config.size.feature_refreshes)
    users, as_ofs, cut = rows["user"].to_numpy(), rows["as_of"].to_numpy(), split.interval("test")[0]
    lines = load_embedder(config.embedder.name, config.embedder.device).encode(
        item_lines(dataset, config.reasoning.prompts.title_characters)
    )
    new = config.examples.target == "next_new_item"
    contents = {
        COMPETITOR: history_mean(dataset, users, as_ofs, lines, config.features.history_mean),
        ORACLE_ARM: future_mean(dataset, users, as_ofs, lines, new=new),
        WIDE_ORACLE_ARM: future_mean(dataset, users, as_ofs, lines, BREADTH, new=False),
    }
    tables = {
        name: fit_table(dataset, rows, vectors, cut, config.features, name, config.seed)[1]
        for name, vectors in contents.items()
    }
    columns = config.features.columns
    arms = [Arm("none"), *(Arm(name, table, columns) for name, table in tables.items())]
    arms.append(Arm(f"{NEGATIVE_CONTROL}shuffled", shuffled(tables[ORACLE_ARM], config.seed), columns))
    found = evaluated(run, folder, config, dataset, split, arms, tables[ORACLE_ARM], seeds)
    write_json(folder / "oracle.json", found)
    return found


def print_oracle(found: dict[str, Any]) -> None:
    """Print the table and, in a sentence each, what knowing the truth is worth."""
    print_study(found, groups=("all", "sparse", "cold items"))
    gaps = {
        row["features"]: row.get("difference")
        for row in found["rows"]
        if (row["group"], row["metric"]) == ("all", "click auc")
    }
    for name, what in ((ORACLE_ARM, "the next item"), (WIDE_ORACLE_ARM, f"the next {BREADTH} items")):
        gap = gaps.get(name)
        if gap and gap["low"] is not None:
            worth = f"{number_text(gap['value'], 4, signed=True)} [{number_text(gap['low'], 4, signed=True)}, {number_text(gap['high'], 4, signed=True)}]"
            print(f"A model that always names {what} would be worth {worth} click AUC to this ranker.")
    print(
        "No real model is always right, and the next item is known here on purpose: these are upper bounds and no forecast."
    )
