"""The benchmark of policies in its quick form, so that it does not rot; two seeds decide nothing."""

import pytest
from tests.quick import run_quick


@pytest.mark.slow
def test_long_term(tmp_path):
    rows = run_quick("long_term", tmp_path, must_hold=lambda check: False)["rows"]
    twin = [
        row["component minus arm"]
        for row in rows
        if row.get("component") == "cache_actor" and row.get("place") == "twin"
        if row["metric"] == "expected clicks per user" and "component minus arm" in row
    ]
    # Where kept lists are as good as computed ones, it does not matter who gets which.
    assert len(twin) == 9 and not any(twin)
