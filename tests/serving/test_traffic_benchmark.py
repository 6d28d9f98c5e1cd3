"""The serving benchmark in short."""

from __future__ import annotations

import pytest
from benchmarks import cache_regret, overload, rank_speed, serving, serving_lists
from benchmarks.harness import Result


def test_the_serving_benchmark_runs() -> None:
    result = serving.measure(quick=True)
    # A share of throughput is of an idle machine; here other tests run beside it, and the benchmark itself holds the
    # bar.
    correct = [check for check in result.checks if "throughput" not in check.name]
    assert correct and all(check.holds for check in correct), result
    assert all(check.value > 0 for check in result.checks if "throughput" in check.name), result
    assert {"read", "write", "rank", "batch"} <= {row["what"] for row in result.rows}


@pytest.mark.slow
def test_the_benchmark_of_served_lists_runs() -> None:
    result = serving_lists.measure(quick=True)
    assert result.checks and all(check.holds for check in result.checks), result
    assert {row["loop"] for row in result.rows} == {"open, 100/s", "closed"}
    assert all(row["CPU ms a request"] > 0 for row in result.rows), result


@pytest.mark.slow
def test_the_benchmark_of_rankings_runs() -> None:
    result = rank_speed.measure(quick=True)
    assert result.checks and all(check.holds for check in result.checks), result
    rows = [row for row in result.rows if "p50 ms" in row]
    assert {row["connections"] for row in rows} == {1, 16} and all(
        row["target"].endswith(("met", "missed")) for row in rows
    )
    assert all(row["own MB"] > 20 for row in result.rows if "own MB" in row)


@pytest.mark.slow
def test_the_overload_benchmark_runs() -> None:
    result = overload.measure(quick=True)
    # The share of the capacity is of a machine that does nothing else; the benchmark itself holds the bar.
    bars = [check for check in result.checks if "goodput" not in check.name]
    assert len(bars) == 11 and all(check.holds for check in bars), result
    assert {"rank", "1100 silent", "8 large heads", "lists, overloaded", "regret, critics"} <= {
        row["what"] for row in result.rows
    }


@pytest.mark.slow
def test_the_regret_of_kept_lists_is_told() -> None:
    result = Result()
    cache_regret.regret(result, quick=True)
    assert all(check.holds for check in result.checks), result
    found = {row["what"]: row for row in result.rows}
    assert found["regret, never"]["from the cache, share"] == 0 < found["regret, overloaded"]["from the cache, share"]
    lost = {name: row["kept list over fresh, reward"] for name, row in found.items()}
    assert lost["regret, overloaded, no spare"] < lost["regret, overloaded"] < 1
