"""Scenarios of a decoder over item codes, such as the pages of an app. Each has a learnt prompt and its own items that
may be shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import Requests
from taiji.core.errors import InputError

Array = NDArray[Any]


def column_of(frame: pl.DataFrame, name: str, what: str) -> pl.Series:
    """Return a column as strings, with empty strings for nulls.

    Raises:
        InputError: there is no column of this name.
    """
    if name not in frame.columns:
        raise InputError(
            "The column of the scenario is missing.",
            where=what,
            expected=f"a column {name}",
            found=", ".join(frame.columns),
            fix="keep the column in the mapping (keep), or set scenario and pool to existing columns",
        )
    return frame[name].cast(pl.String).fill_null("")


def scenarios_of(rows: pl.DataFrame, name: str) -> list[str]:
    """Return the sorted names of the scenarios of all interactions (rows with a click)."""
    return sorted(column_of(rows.filter(pl.col("click") == 1), name, "events").unique().to_list())


def numbers_of(values: Array, known: list[str]) -> Array:
    """Return the index of each scenario (B,), from 1; 0 for an unknown one."""
    numbers = {text: place + 1 for place, text in enumerate(known)}
    found, inverse = np.unique(np.asarray(values).astype(str), return_inverse=True)
    return np.array([numbers.get(text, 0) for text in found.tolist()], np.int64)[inverse.ravel()]


def scenario_of_requests(requests: Requests, name: str) -> Array:
    """Return the scenario of each request (B,) as a string.

    Raises:
        InputError: the requests have no column for the scenario.
    """
    if name not in requests.columns:
        raise InputError(
            "The requests have no column for their scenario.",
            where="requests",
            expected=f"a column {name}",
            found=", ".join(requests.columns) or "no columns",
        )
    return np.asarray(requests.columns[name]).astype(str)
