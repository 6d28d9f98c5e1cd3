"""Rules for clicks and conversions, from flags, actions and ratings."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from taiji.data.discovery.labels import labels
from taiji.data.discovery.table_files import Table


@pytest.mark.parametrize(
    ("columns", "click", "conversion", "doubtful"),
    [
        ({"clicked": [0, 1, 1], "bought": [0, 0, 1]}, "clicked", "bought", False),
        ({"clicked": [0, 1, 1], "bought": [1, 0, 1]}, "clicked or bought", "bought", True),
        ({"bought": [0, 1, 1]}, "bought", None, True),
        ({"purchased": [1, 1, 1]}, 1, "purchased", False),
        ({"event_type": ["view", "cart", "purchase"]}, 1, "event_type == purchase", False),
        (
            {"event_type": ["impression", "click", "purchase"]},
            "event_type != impression",
            "event_type == purchase",
            False,
        ),
        ({"event": ["view", "click", "buy"]}, "event != view", "event == buy", True),
        ({"event": ["impression", "no_click", "click"]}, "event == click", None, False),
        ({"event": ["impression", "buy"]}, "event != impression", None, False),
        ({"event": ["click", "buy", "order"]}, 1, "event in (buy, order)", False),
        ({"event": ["buy", "return"]}, 1, "event == buy", True),
        ({"event": ["add to cart", "page view", "bought it"]}, 1, "event == 'bought it'", False),
        ({"stars": [1, 3, 5]}, 1, "stars >= 4", False),
        ({"rating": [0.5, 5.0, 3.0]}, 1, "rating >= 3.875", False),
        ({"odd": [0, 1, 1]}, 1, None, True),
        ({}, 1, None, False),
    ],
)
def test_rules(columns, click, conversion, doubtful):
    found = labels(
        Table(
            Path("log.csv"),
            pl.DataFrame({"user": ["a", "b", "c"][: len(next(iter(columns.values()), "abc"))], **columns}),
        ),
        {"user"},
    )
    assert (found.click, found.conversion) == (click, conversion)
    assert bool(found.doubts) == doubtful
    assert set(found.reasons) == {"click", *(["conversion"] if conversion else [])}
