"""Table of item knowledge: what a language model wrote about items, and from when on each text counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from taiji.core.errors import InputError
from taiji.data.availability import EVER, Availability
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
"""Columns of the table, a row per item.

``text`` is what may be used: null where the guard flagged what was ``said`` (``flagged`` has the reasons) or where it did not end
well (``ended``). ``writer`` is the version of the model and its sampling, ``asked`` the hash of the prompt. Times are in microseconds:
the catalogue listed the item at ``as_of``, and its text counts from ``available_at`` on.
"""
NEEDED = ("item_id", "text", "available_at")
"""Columns that a reader needs; a table of your own may have these alone."""

COLUMNS = ("knowledge", "knowledge_at")
"""Columns of an item table that has texts of its own: the text, and (optional) from when it counts, in microseconds; without that, from the listing on."""


def read_knowledge(path: str | Path) -> pl.DataFrame:
    """Read a table.

    Raises:
        InputError: it cannot be read, lacks columns, or has an item twice.
    """
    try:
        table = pl.read_parquet(Path(path).expanduser())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            "The table of item knowledge cannot be read.",
            where=str(path),
            expected="a Parquet file as the stage item_knowledge writes it",
            found=str(error).splitlines()[0][:200],
            fix="name the file knowledge.parquet of a finished stage item_knowledge",
        ) from error
    missing = [name for name in NEEDED if name not in table.columns]
    if missing or table["item_id"].n_unique() < len(table) or table["available_at"].null_count():
        raise InputError(
            "The table is not one of item knowledge.",
            where=str(path),
            expected=f"columns {', '.join(NEEDED)}, each item once, every time known",
            found=f"no {', '.join(missing)}" if missing else "an item twice, or a time that is missing",
        )
    return table.with_columns(pl.col("item_id").cast(pl.String), pl.col("available_at").cast(pl.Int64))


def listed_at(dataset: Dataset) -> np.ndarray:
    """Return when the catalogue listed each item, (n_items,) microseconds: its ``available_from``, else the log's beginning.

    Its first event would not do: of items that nobody had taken before, those taken at a row's time would be listed by then and
    those that others take later would not, which tells the label.
    """
    first = Availability.of(dataset).first
    begin = dataset.scan().select(pl.col("time").min()).collect().item()
    return np.where(first > EVER.min, first, int(begin or 0))


def with_knowledge(dataset: Dataset, table: pl.DataFrame) -> Dataset:
    """Return a dataset whose item table has a table's texts, as :data:`COLUMNS`."""
    told = table.select("item_id", pl.col("text").alias(COLUMNS[0]), pl.col("available_at").alias(COLUMNS[1]))
    plain = dataset.items.drop(COLUMNS, strict=False).with_columns(_id=pl.col("item_id").cast(pl.String))
    joined = plain.join(told, left_on="_id", right_on="item_id", how="left", maintain_order="left").drop("_id")
    made = replace(dataset, items=joined)
    vars(made).update({name: vars(dataset)[name] for name in ("history", "prices") if name in vars(dataset)})
    return made


def own_knowledge(dataset: Dataset) -> pl.DataFrame | None:
    """Return the texts that the item table has, in the columns :data:`NEEDED`; None where it has none."""
    if COLUMNS[0] not in dataset.items.columns:
        return None
    times = listed_at(dataset)
    if COLUMNS[1] in dataset.items.columns:
        times = dataset.items[COLUMNS[1]].cast(pl.Int64).fill_null(pl.Series(times)).to_numpy()
    return pl.DataFrame(
        {
            "item_id": dataset.items["item_id"].cast(pl.String),
            "text": dataset.items[COLUMNS[0]].cast(pl.String),
            "available_at": times,
        }
    )
