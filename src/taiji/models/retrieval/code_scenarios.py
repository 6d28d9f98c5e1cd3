"""Scenarios of a decoder over item codes, such as the pages of an app. Each scenario has a learnt prompt, and may have
its own set of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import Requests
from taiji.core.errors import InputError

Array = NDArray[Any]


def column_of(frame: pl.DataFrame, name: str, what: str) -> pl.Series:
    """Return the column of scenarios in a table as strings, with empty strings for nulls.

    Raises:
        InputError: there is no column of this name.
    """
    if name not in frame.columns:
        raise InputError(
            "The column of the scenario is missing.",
            where=what,
            expected=f"a column {name}",
            found=", ".join(frame.columns),
            fix="list the column under `keep` in the mapping, or set `scenario` and `pool` to existing columns",
        )
    column = frame[name]
    if column.dtype.is_float() or column.dtype == pl.Boolean:  # polars and Python write these types differently
        return pl.Series(name, scenario_texts(column.to_list()), dtype=pl.String)
    return column.cast(pl.String).fill_null("")


def scenario_texts(values: Sequence[Any]) -> list[str]:
    """Return the text of each scenario. Missing values become empty strings, booleans become ``true`` or ``false``, and
    whole numbers have no decimal point."""

    def text(value: Any) -> str:
        if value is None or value != value:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    return [text(value) for value in values]


def scenarios_of(rows: pl.DataFrame, name: str) -> list[str]:
    """Return the sorted names of the scenarios of all interactions (rows with a click)."""
    return sorted(column_of(rows.filter(pl.col("click") == 1), name, "events").unique().to_list())


def numbers_of(values: Array, known: list[str]) -> Array:
    """Return the index of each scenario (B,) in ``known``, from 1; 0 for an unknown scenario."""
    numbers = {text: place + 1 for place, text in enumerate(known)}
    found, inverse = np.unique(np.asarray(values).astype(str), return_inverse=True)
    return np.array([numbers.get(text, 0) for text in found.tolist()], np.int64)[inverse.ravel()]


def scenario_of_requests(requests: Requests, name: str) -> Array:
    """Return the scenario of each request (B,) as a string. It is empty if the value or the whole column is missing."""
    if name not in requests.columns:
        return np.full(len(requests), "")
    return np.array(scenario_texts(np.asarray(requests.columns[name]).tolist()), dtype=str)
