"""Scenarios of a decoder over item codes: a prompt for each, and the items that may be shown in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import Requests
from taiji.core.errors import InputError
from taiji.data.history import compressed

Array = NDArray[Any]


def column_of(frame: pl.DataFrame, name: str, what: str) -> pl.Series:
    """Return a column as texts, empty where it is null.

    Raises:
        InputError: there is none of that name.
    """
    if name not in frame.columns:
        raise InputError(
            "A scenario's column is missing.",
            where=what,
            expected=f"a column {name}",
            found=", ".join(frame.columns),
            fix="take it along in the mapping (keep), or set scenario and pool to columns that are there",
        )
    return frame[name].cast(pl.String).fill_null("")


def scenarios_of(rows: pl.DataFrame, name: str, n_users: int) -> tuple[list[str], Array]:
    """Return the scenarios of the interactions in rows, sorted, and the number of each interaction's from 1, as a history orders them."""
    clicks = rows.filter(pl.col("click") == 1)
    order, _ = compressed(clicks["user"].to_numpy(), n_users)
    values = column_of(clicks, name, "events").to_numpy().astype(str)[order]
    known, number = np.unique(values, return_inverse=True)
    return known.tolist(), number.ravel().astype(np.int64) + 1


def prompts_of(requests: Requests, name: str, known: list[str]) -> tuple[Array, Array]:
    """Return the scenario of each request (B,) as text, and its number from 1, 0 for one that was not learnt.

    Raises:
        InputError: the requests do not name their scenario.
    """
    if name not in requests.columns:
        raise InputError(
            "Requests do not name their scenario.",
            where="requests",
            expected=f"a column {name}",
            found=", ".join(requests.columns) or "no columns",
        )
    values = np.asarray(requests.columns[name]).astype(str)
    numbers = {text: place + 1 for place, text in enumerate(known)}
    found, inverse = np.unique(values, return_inverse=True)
    return values, np.array([numbers.get(text, 0) for text in found.tolist()], np.int64)[inverse.ravel()]
