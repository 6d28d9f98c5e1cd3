"""Split a log by global time, and return the exposures of a period with the labels that had matured by its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.settings import SplitSettings

PERIODS = ("reward", "llm", "ranker", "test")
DEFAULT = SplitSettings()


@dataclass(frozen=True)
class Split:
    """Four consecutive periods of time.

    Attributes:
        bounds: five ascending times (microseconds since the epoch); period k is ``[bounds[k], bounds[k + 1])``.
    """

    bounds: tuple[int, int, int, int, int]

    def interval(self, period: str) -> tuple[int, int]:
        """Return the half-open interval ``(start, end)`` of a period.

        Raises:
            ConfigError: the name is not in :data:`PERIODS`.
        """
        if period not in PERIODS:
            raise ConfigError("The period is unknown.", expected=" | ".join(PERIODS), found=period)
        place = PERIODS.index(period)
        return self.bounds[place], self.bounds[place + 1]


def time_split(dataset: Dataset, fractions: Sequence[float] | SplitSettings = DEFAULT) -> Split:
    """Split the log at global times so that each period contains its share of the interactions.

    Interactions with the same time stay together, so the shares are only as exact as the timestamps allow.

    Raises:
        InputError: the log has too few distinct times for four non-empty periods.
    """
    settings = (
        fractions if isinstance(fractions, SplitSettings) else SplitSettings.model_validate({"fractions": fractions})
    )
    shares = settings.fractions
    times = np.sort(dataset.history.times)
    if not len(times):
        raise InputError(
            "The log has no interactions to split.",
            where=f"data {dataset.name}",
            expected="events with click 1",
            found="none",
        )
    places = np.ceil(np.cumsum(shares[:3]) * len(times) - 1e-9).astype(int)
    cuts = [int(times[min(place, len(times) - 1)]) for place in places]
    first, last = dataset.scan().select(pl.col("time").first(), pl.col("time").last().alias("last")).collect().row(0)
    bounds = (int(first), *cuts, int(last) + 1)
    if any(a >= b for a, b in pairwise(bounds)) or cuts[0] <= times[0]:
        raise InputError(
            "The log cannot be split by time into four periods.",
            where=f"data {dataset.name}",
            expected="enough distinct times for the fractions " + ", ".join(f"{share:g}" for share in shares),
            found=f"{len(times):,} interactions at {len(np.unique(times)):,} distinct times",
            fix="use a longer log, or set other split.fractions",
        )
    return Split(bounds)  # type: ignore[arg-type]


def exposures(dataset: Dataset, split: Split, period: str, users: tuple[int, int] | None = None) -> pl.DataFrame:
    """Return the exposures of a period, of all users or of the users ``[users[0], users[1])``.

    The columns are ``event, user, item, time, click, conversion, price``, followed by the declared labels and the
    columns that are known at the display (context, bias variables, list id, position, propensity). A delayed label
    (``conversion``, and any label whose task is delayed) is null unless it had matured strictly before the end of the
    period, because a label that matured later could not have been used for training. Any other label is known at the
    time of its event. ``price`` is the last price of the item strictly before the exposure, or else the listed price of
    the item, or null. The price of the row itself is not used: many logs have a price only for a purchase, so it would
    reveal the click.
    """
    rows = scan_exposures(dataset, split, period)
    if users is not None:
        rows = rows.filter(pl.col("user").is_between(*users, closed="left"))
    columns = dataset.event_columns
    further = (*(task.name for task in columns.labels), *columns.known_at_display)
    frame = rows.select("event", "user", "item", "time", "click", "conversion", *further).collect()
    prices = dataset.prices.before(frame["item"].to_numpy(), frame["time"].to_numpy())
    return frame.insert_column(6, pl.Series("price", prices).fill_nan(None))


def scan_exposures(dataset: Dataset, split: Split, period: str) -> pl.LazyFrame:
    """Return the exposures of a period as a lazy frame, for queries (such as counts) that do not need all of them in
    memory.

    The columns are those of the events. Delayed labels are null unless they had matured strictly before the end of the
    period.
    """
    start, end = split.interval(period)
    delayed = ["conversion", *(task.name for task in dataset.event_columns.labels if task.delayed)]
    rows = dataset.scan().filter(pl.col("exposed") & (pl.col("time") >= start) & (pl.col("time") < end))
    return rows.with_columns(pl.when(pl.col("matured_at") < end).then(pl.col(name)).alias(name) for name in delayed)


def later_slice(exposures: pl.DataFrame, fraction: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows by time into the earlier rows and the latest ``fraction`` of the rows. Rows with the same time stay
    together."""
    cut = exposures["time"].quantile(1 - fraction, interpolation="lower")
    return exposures.filter(pl.col("time") < cut), exposures.filter(pl.col("time") >= cut)


def fingerprint(examples: pl.DataFrame) -> str:
    """Return the SHA-256 of the sorted (``user_id``, ``as_of``, ``target_id``) of examples. It does not depend on the
    order of the examples."""
    rows = sorted(
        examples.select(pl.col("user_id").cast(pl.String), "as_of", pl.col("target_id").cast(pl.String)).rows()
    )
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
