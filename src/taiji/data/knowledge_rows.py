"""Table of item knowledge: texts that a language model wrote about items, and the times from which they may be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from taiji.core.errors import InputError
from taiji.data.availability import EVER, Availability, bound_times
from taiji.data.dataset import Dataset

SCHEMA: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "text": pl.String(),
    "said": pl.String(),
    "flagged": pl.String(),
    "ended": pl.String(),
    "writer": pl.String(),
    "asked": pl.String(),
    "prompt_tokens": pl.UInt32(),
    "completion_tokens": pl.UInt32(),
    "as_of": pl.Int64(),
    "available_at": pl.Int64(),
}
"""Columns of the table, which has one row per item.

``said`` is the reply of the model, and ``text`` is its usable text. ``text`` is null if a check
(:mod:`taiji.reasoning.knowledge_guard`) flagged the reply (``flagged`` has the reasons) or if the reply did not end
properly (``ended``). ``writer`` is the version of the model and its sampling settings, and ``asked`` is the hash of the
prompt. Times are in microseconds: the catalogue listed the item at ``as_of``, and the text may be used from
``available_at`` on.
"""
NEEDED = ("item_id", "text", "available_at")
"""Columns that are required to use a table of knowledge. A table of your own may have only these."""

COLUMNS = ("knowledge", "knowledge_at")
"""Columns in which a table of items may provide texts of its own: the text, and optionally the time from which it may
be used (a date, a time, an ISO 8601 text, or an integer in microseconds). Without this time, the text may be used from
the time when the item was listed."""


def read_knowledge(path: str | Path) -> pl.DataFrame:
    """Read a table of item knowledge.

    Raises:
        InputError: the table cannot be read, columns are missing, an item occurs twice, or ``available_at`` does not
            contain times (dates, times, ISO 8601 texts, or integers in microseconds).
    """
    try:
        table = pl.read_parquet(Path(path).expanduser())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            "A table of item knowledge cannot be read.",
            where=str(path),
            expected="a Parquet file written by the stage item_knowledge",
            found=str(error).splitlines()[0][:200],
            fix="name the file knowledge.parquet of a completed stage item_knowledge",
        ) from error
    missing = [name for name in NEEDED if name not in table.columns]
    if missing or table["item_id"].n_unique() < len(table) or table["available_at"].null_count():
        raise InputError(
            "A table is not a table of item knowledge.",
            where=str(path),
            expected=f"columns {', '.join(NEEDED)}, one row per item, and no missing times",
            found=f"no {', '.join(missing)}" if missing else "a repeated item, or a missing time",
        )
    times = bound_times(table, "available_at", 0, str(path))
    return table.with_columns(pl.col("item_id").cast(pl.String), pl.Series("available_at", times))


def listed_at(dataset: Dataset) -> np.ndarray:
    """Return the time at which the catalogue listed each item, (n_items,), in microseconds: its ``available_from``, or
    the start of the log.

    The first event of an item must not be used instead, because it would leak labels: in the row of an item's first
    click, the item would count as listed, while other items without an earlier click would not.
    """
    first = Availability.of(dataset).first
    begin = dataset.scan().select(pl.col("time").min()).collect().item()
    return np.where(first > EVER.min, first, int(begin or 0))


def with_knowledge(dataset: Dataset, table: pl.DataFrame) -> Dataset:
    """Return the dataset with the texts of a table of knowledge in the columns :data:`COLUMNS` of its items."""
    texts = table.select("item_id", pl.col("text").alias(COLUMNS[0]), pl.col("available_at").alias(COLUMNS[1]))
    plain = dataset.items.drop(COLUMNS, strict=False).with_columns(_id=pl.col("item_id").cast(pl.String))
    joined = plain.join(texts, left_on="_id", right_on="item_id", how="left", maintain_order="left").drop("_id")
    made = replace(dataset, items=joined)
    vars(made).update({name: vars(dataset)[name] for name in ("history", "prices") if name in vars(dataset)})
    return made


def own_knowledge(dataset: Dataset) -> pl.DataFrame | None:
    """Return the texts in the table of items as a table with the columns :data:`NEEDED`, or None if there are none."""
    if COLUMNS[0] not in dataset.items.columns:
        return None
    times = listed_at(dataset)
    if COLUMNS[1] in dataset.items.columns:
        given = bound_times(dataset.items, COLUMNS[1], EVER.min)
        times = np.where(given > EVER.min, given, times)
    return pl.DataFrame(
        {
            "item_id": dataset.items["item_id"].cast(pl.String),
            "text": dataset.items[COLUMNS[0]].cast(pl.String),
            "available_at": times,
        }
    )
