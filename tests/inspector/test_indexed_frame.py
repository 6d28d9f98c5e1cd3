"""Rows of one key at once are the rows of that key, in their order."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.inspector.indexed_frame import Table


@given(st.lists(st.integers(0, 6), max_size=40))
@settings(max_examples=50, deadline=None)
def test_groups_hold_what_a_filter_finds(users):
    frame = pl.DataFrame(
        {
            "user": pl.Series(users, dtype=pl.UInt32),
            "row": np.arange(len(users)),
            "example": pl.Series([f"e{u}" for u in users], dtype=pl.String),
        }
    )
    by_user, by_example = Table.by_user(frame, 8), Table.by_example(frame)
    for user in range(8):
        wanted = [row for row, u in enumerate(users) if u == user]
        assert [row["row"] for row in by_user.of(user)] == wanted
        assert [row["row"] for row in by_example.of(f"e{user}")] == wanted
    assert by_user.of(8) == by_user.of(-1) == by_example.of("nobody") == []


def test_an_empty_table_has_nothing_of_anybody():
    assert Table.empty().of(0) == [] and Table.empty().of("e") == []
