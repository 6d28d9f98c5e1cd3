"""A pair field: the share of a user's last interactions that have the category of the candidate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.field_rows import Rows
from taiji.data.fields import NumberField


class SameCategory(NumberField):
    """Share of the user's last interactions whose item has the candidate's category at the first level.

    Args:
        name: name of the field.
        last: largest number of interactions that are read.
    """

    shared = True  # reads only user, item, time and the dataset, so a service computes it once for both rankers

    def __init__(self, name: str = "same_category", last: int = 20) -> None:
        super().__init__(name, side="pair")
        self.last = last
        self.options = {"name": name, "last": last}

    def compute(self, rows: Rows) -> NDArray[Any]:
        """Return the share for each row, (N,); NaN without a history, or if the candidate has no category."""
        dataset = rows.dataset
        if not dataset.levels:
            return np.full(len(rows), np.nan)
        category = dataset.items[dataset.levels[0]].rank("dense").fill_null(0).to_numpy()  # 0: no category
        items, _ = dataset.history.before_batch(rows.user, rows.time, self.last)  # (N, last), padded with -1
        there = items >= 0
        own = category[rows.item]
        same = there & (category[items] == own[:, None])  # -1 reads the last item, and `there` excludes it
        share = same.sum(1) / np.maximum(there.sum(1), 1)
        return np.where(there.any(1) & (own > 0), share, np.nan)
