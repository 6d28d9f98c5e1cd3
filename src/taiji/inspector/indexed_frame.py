"""Frame with an index for fast access to the rows of one user or one example."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from taiji.data.history import compressed


@dataclass(frozen=True, eq=False)
class Table:
    """Rows grouped by key. Within a group they have the order of the original frame.

    Attributes:
        frame: rows, sorted so that the rows of a key are adjacent.
        offsets: start of the rows of each key, (keys + 1,).
        keys: map from the name of an example to the index of its group; empty if dense user ids are the keys.
    """

    frame: pl.DataFrame
    offsets: np.ndarray
    keys: dict[str, int] = field(default_factory=dict)

    @classmethod
    def by_user(cls, frame: pl.DataFrame, n_users: int) -> Table:
        """Group rows by dense user ids, keeping the order within a user."""
        order, offsets = compressed(frame["user"].to_numpy(), n_users)
        return cls(frame if (np.diff(order) == 1).all() else frame[order], offsets)

    @classmethod
    def by_example(cls, frame: pl.DataFrame) -> Table:
        """Group rows by the column ``example``."""
        keys = {name: number for number, name in enumerate(frame["example"].unique(maintain_order=True))}
        numbers = (
            frame["example"].replace_strict(keys, return_dtype=pl.Int64).to_numpy() if keys else np.zeros(0, np.int64)
        )
        order, offsets = compressed(numbers, len(keys))
        return cls(frame[order], offsets, keys)

    @classmethod
    def empty(cls) -> Table:
        """Return an empty table, for a stage that has not run."""
        return cls(pl.DataFrame(), np.zeros(1, np.int64))

    def of(self, key: int | str) -> list[dict[str, Any]]:
        """Return the rows of a user or an example as dicts; none for an unknown key."""
        return self.part(key).to_dicts()

    def part(self, key: int | str) -> pl.DataFrame:
        """Return the rows of a user or an example; none for an unknown key."""
        number = self.keys.get(key, -1) if isinstance(key, str) else key
        if not 0 <= number < len(self.offsets) - 1:
            return self.frame.head(0)
        start, end = int(self.offsets[number]), int(self.offsets[number + 1])
        return self.frame.slice(start, end - start)
