"""Choose the prompts of each role: rationale, calibration, alignment and test."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.core.errors import InputError
from taiji.data import Dataset, Split
from taiji.data.examples import INTERACTIONS, choose_examples, example_candidates
from taiji.pipeline.run_data import stored

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work

LLM_ROLES = ("rationale", "calibration", "alignment")


def choose_prompts(context: Context, dataset: Dataset, split: Split) -> pl.DataFrame:
    """Choose the prompts of all roles. The roles of the LLM period have no users in common.

    Raises:
        InputError: the log is too small for a role.
    """
    config = context.config
    rng = np.random.default_rng([config.seed, 1])
    llm, test = _candidates(context, dataset, split, ("llm", "test"))
    size = config.size
    roles = _assign(
        llm, dict(zip(LLM_ROLES, (size.rationale_prompts, size.calibration_prompts, size.alignment_prompts))), rng
    )
    test = test[np.sort(rng.permutation(len(test))[: size.test_prompts])].with_columns(role=pl.lit("test"))
    chosen = pl.concat([roles, test])
    for role in (*LLM_ROLES, "test"):
        if not (chosen["role"] == role).any():
            raise InputError(
                f"The log is too small: there is no prompt for {role!r}.",
                where=f"{dataset.name}, split {config.split.fractions}",
                found=f"{len(llm)} prompts in the LLM period, {len(test)} in the test period",
                fix="lower examples.min_history, change split.fractions, or provide more events",
            )
    return chosen


def _candidates(context: Context, dataset: Dataset, split: Split, periods: tuple[str, ...]) -> list[pl.DataFrame]:
    """Return the candidate prompts of each period. They are computed for ranges of users by the mapper of the run."""
    ranges = dataset.history.ranges(INTERACTIONS)
    rows = pl.DataFrame(
        [(period, *users) for period in periods for users in ranges],
        schema={"period": pl.String, "first": pl.Int64, "last": pl.Int64},
        orient="row",
    )
    # One range takes about a second, which is less than starting a worker.
    found = context.over(
        rows,
        partial(open_choosing, context, split),
        "Choosing prompts",
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


def open_choosing(context: Context, split: Split) -> Work:
    config, dataset = context.config, stored(context)

    def work(part: pl.DataFrame) -> pl.DataFrame:
        period, first, last = part.row(0)
        return example_candidates(dataset, split, period, config.examples, config.seed, first, last).with_columns(
            period=pl.lit(period)
        )

    return work


def _assign(frame: pl.DataFrame, wanted: dict[str, int], rng: np.random.Generator) -> pl.DataFrame:
    """Return the prompts with a role each. Users are assigned to roles in a seeded random order.

    A role is given users until it has its wanted number of prompts. If there are too few prompts, all wanted numbers are
    scaled down by the same factor.
    """
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
    # The prompts of the last user may exceed the requested number.
    return chosen.filter(
        pl.int_range(pl.len()).over("role") < pl.col("role").replace_strict(wanted, return_dtype=pl.Int64)
    )


def iso_time(time: int) -> str:
    """Convert microseconds since the epoch to ISO format."""
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="seconds")
