"""Stages `data` and `examples`: from a source to dense tables, four periods of time, and the prompts of each role."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from taiji.core.artifacts import read_json, write_json, write_parquet
from taiji.core.errors import TaijiError
from taiji.data import (
    PERIODS,
    Dataset,
    Split,
    fingerprint,
    load_dataset,
    open_dataset,
    scan_exposures,
    time_split,
)
from taiji.data.examples import INTERACTIONS, choose_examples, example_candidates
from taiji.data.sources import find_source

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work

ROLES = ("rationale", "calibration", "alignment")


def data(context: Context) -> dict[str, Any]:
    """Read the source, check it and store the tables."""
    dataset = load_dataset(context.config.data, context.config.seed)
    dataset.save(context.folder / "dataset")
    return {"users": dataset.n_users, "items": dataset.n_items, "events": len(dataset.events)}


def source_state(config: Config) -> Any:
    """Return the state of the source: when it changes, the data stage runs again."""
    return find_source(config.data).state(config.data)


def load(context: Context) -> Dataset:
    """The dataset of the run, in memory."""
    return Dataset.load(context.input("data") / "dataset")


def stored(context: Context) -> Dataset:
    """The dataset of the run, left on disk: for stages that look at users one by one."""
    return open_dataset(context.input("data") / "dataset")


def load_split(context: Context) -> Split:
    """The split of the run."""
    return Split(tuple(read_json(context.input("examples") / "split.json")["bounds"]))


def load_examples(context: Context, role: str) -> pl.DataFrame:
    """The prompts of one role: `rationale`, `calibration`, `alignment` or `test`."""
    return pl.read_parquet(context.input("examples") / "examples.parquet").filter(pl.col("role") == role)


def examples(context: Context) -> dict[str, Any]:
    """Split by time and choose the prompts; the roles of the LLM period share no user."""
    config, dataset = context.config, stored(context)
    split = time_split(dataset, config.split)
    rng = np.random.default_rng([config.seed, 1])
    llm, test = _candidates(context, dataset, split, ("llm", "test"))
    size = config.size
    roles = _assign(
        llm, dict(zip(ROLES, (size.rationale_prompts, size.calibration_prompts, size.alignment_prompts))), rng
    )
    test = test[np.sort(rng.permutation(len(test))[: size.test_prompts])].with_columns(role=pl.lit("test"))
    chosen = pl.concat([roles, test])
    for role in (*ROLES, "test"):
        if not (chosen["role"] == role).any():
            raise TaijiError(
                f"The log is too small: no prompt is left for {role!r}.",
                where=f"{dataset.name}, split {config.split.fractions}",
                found=f"{len(llm)} prompts in the LLM period, {len(test)} in the test period",
                fix="lower examples.min_history, change split.fractions, or bring more events",
            )
    write_parquet(context.folder / "examples.parquet", chosen)
    rows = {
        "exposures": {
            period: scan_exposures(dataset, split, period).select(pl.len()).collect(engine="streaming").item()
            for period in PERIODS
        },
        "prompts": dict(chosen["role"].value_counts().sort("role").iter_rows()),
    }
    dates = {period: [_date(time) for time in split.interval(period)] for period in PERIODS}
    # make_examples knows dense ids; the fingerprint is over the ids as the user gave them, so it survives renumbering.
    write_json(
        context.folder / "split.json",
        {"bounds": list(split.bounds), "fingerprint": fingerprint(chosen), "dates": dates, "rows": rows},
    )
    return rows


def _candidates(context: Context, dataset: Dataset, split: Split, periods: tuple[str, ...]) -> list[pl.DataFrame]:
    """The examples of each period; users are looked at in ranges, wherever partitions are computed."""
    ranges = dataset.history.ranges(INTERACTIONS)
    rows = pl.DataFrame(
        [(period, *users) for period in periods for users in ranges],
        schema={"period": pl.String, "first": pl.Int64, "last": pl.Int64},
        orient="row",
    )
    # One range is a second's work: less than opening a worker.
    found = context.over(
        rows,
        partial(_open_choosing, context, split),
        "Choosing examples",
        "ranges of users",
        size=1,
        here=len(ranges) == 1,
    )
    return [
        choose_examples(
            dataset, found.filter(pl.col("period") == period).drop("period"), period, context.config.examples
        )
        for period in periods
    ]


def _open_choosing(context: Context, split: Split) -> Work:
    config, dataset = context.config, stored(context)

    def work(part: pl.DataFrame) -> pl.DataFrame:
        period, first, last = part.row(0)
        return example_candidates(dataset, split, period, config.examples, config.seed, first, last).with_columns(
            period=pl.lit(period)
        )

    return work


def _assign(frame: pl.DataFrame, wanted: dict[str, int], rng: np.random.Generator) -> pl.DataFrame:
    """Give users, in a seeded order, to the roles until each has its number of prompts; scaled down alike when prompts are short."""
    users = frame["user"].unique().sort()
    order = pl.DataFrame({"user": users, "place": rng.permutation(len(users))})
    frame = frame.join(order, on="user", maintain_order="left").sort("place", "as_of", "example")
    share = min(1.0, len(frame) / sum(wanted.values()))
    role_of: dict[int, str] = {}
    counts = dict.fromkeys(wanted, 0)
    for user, number in frame.group_by("user", maintain_order=True).len().iter_rows():
        role = next((name for name, target in wanted.items() if counts[name] < max(1, round(target * share))), None)
        if role is None:
            break
        role_of[user] = role
        counts[role] += number
    chosen = frame.drop("place").with_columns(
        role=pl.col("user").replace_strict(role_of, default=None, return_dtype=pl.String)
    )
    chosen = chosen.filter(pl.col("role").is_not_null())
    # A user's last prompts may overshoot the number asked for.
    return chosen.filter(
        pl.int_range(pl.len()).over("role") < pl.col("role").replace_strict(wanted, return_dtype=pl.Int64)
    )


def _date(time: int) -> str:
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="seconds")
