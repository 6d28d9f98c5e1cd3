"""The stage climbs the run's log and those beside it, and a seed less leaves it out."""

import numpy as np
import polars as pl
import pytest
from tests.tiny import write_shop

from taiji.config import Config
from taiji.core.artifacts import read_json
from taiji.data import Dataset, Tables
from taiji.experiments.log_ladder import climbed
from taiji.pipeline.engine import Run
from taiji.pipeline.stages.data_stage import Data
from taiji.pipeline.stages.ladder_stage import Ladder
from taiji.reporting.summary import LogLadder


def climb(folder, level=0.95, say=lambda text: None, **ladder):
    ranking = {"hidden": [4], "min_steps": 1}
    config = Config(
        data={"source": str(write_shop(folder / "shop"))},
        ladder=ladder,
        ranking=ranking,
        evaluation={"resamples": 20, "level": level},
    )
    Run(folder / "run", config, (Data(), Ladder()), say).execute()
    return read_json(folder / "run" / "ladder" / "ladder.json")


def test_every_log_has_its_ladder(tmp_path):
    found = climb(tmp_path, rows=300, logs=["world:shop,users=30,days=12"])
    assert len(found) == 2 and found[1]["log"] == "shop"
    for entry in found:
        log = LogLadder.model_validate(entry)
        assert log.left_out or [row.rung[0] for row in log.ladder if row.group == "all"] == ["0", "1", "2", "2", "4"]


def test_the_intervals_have_the_level_that_the_report_names(tmp_path):
    wide, narrow = (
        [
            row["high"] - row["low"]
            for row in climb(tmp_path / str(level), level, rows=300)[0]["ladder"]
            if row.get("low") is not None
        ]
        for level in (0.95, 0.5)
    )
    assert len(wide) == len(narrow) > 0 and all(one > other > 0 for one, other in zip(wide, narrow))


def test_no_seed_no_ladder(tmp_path):
    said = []
    assert climb(tmp_path, seeds=0, say=said.append) == [] and "done" in said[-1]


def test_the_terminal_shows_the_conclusion_of_the_own_log_as_soon_as_it_is_known(tmp_path):
    said = []
    climb(tmp_path, say=said.append, rows=300)
    assert said[-1].startswith("    advice: ") and sum("asked: " in line for line in said) == 1


@pytest.mark.parametrize(("share", "days"), [(0.0, 3), (0.0, 2), (0.9, 2)], ids=["three", "two", "imported"])
def test_a_log_of_few_times_is_climbed_or_left_out_with_the_reason(share, days):
    """A log by the day; or most of it at one time, as after an import."""
    random, rows = np.random.default_rng(0), 3000
    day = np.where(random.random(rows) < share, 0, random.integers(0, days, rows))
    when = pl.Series(np.sort(day)).cast(pl.Int64) * 86_400_000_000
    events = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in random.integers(0, 300, rows)],
            "item_id": [f"i{n}" for n in random.integers(0, 200, rows)],
            "timestamp": when.cast(pl.Datetime("us")),
            "click": pl.Series([1] * rows, dtype=pl.Int8),
        }
    )
    items = events.select("item_id").unique().sort("item_id").with_columns(title=pl.col("item_id"))
    dataset = Dataset.from_tables(Tables(items, events.select("user_id").unique().sort("user_id"), events))
    found = climbed(dataset, "wordllama", 1, 20, rows=2000)
    assert bool(found["ladder"]) == (days == 3) != ("for a ladder" in found.get("left_out", ""))
