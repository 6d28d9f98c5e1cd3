"""Rows of a log become slates, whatever their order."""

import numpy as np
import polars as pl

from taiji.models.fusion.learnt_fusion import CANDIDATES
from taiji.models.fusion.logged_slates import logged_slates
from taiji.testing import checkerboard


def test_rows_of_a_request_are_together():
    shown = pl.DataFrame(
        {"user": [1, 0, 1, 1], "item": [5, 6, 7, 8], "time": [20, 10, 20, 30], "click": [1, 0, None, 1]},
        schema={"user": pl.UInt32, "item": pl.UInt32, "time": pl.Int64, "click": pl.Int8},
    )
    predictions = pl.DataFrame({"event": [0, 1, 2, 3], "click": [0.1, 0.2, 0.3, 0.4]})
    rows = logged_slates(checkerboard(), shown, predictions, ["click"])
    assert rows.requests.user.tolist() == [0, 1, 1] and rows.requests.time.tolist() == [10, 20, 30]
    assert rows.requests.columns[CANDIDATES].tolist() == [[6, -1], [5, 7], [8, -1]]
    np.testing.assert_array_equal(rows.predictions["click"], [[0.2, np.nan], [0.1, 0.3], [0.4, np.nan]])
    np.testing.assert_array_equal(rows.labels["click"], [[0, np.nan], [1, np.nan], [1, np.nan]])
