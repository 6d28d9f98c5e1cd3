"""The serving benchmark in short."""

from __future__ import annotations

from benchmarks import serving


def test_the_serving_benchmark_runs() -> None:
    result = serving.measure(quick=True)
    assert all(check.holds for check in result.checks), result
    assert {"read", "write", "rank", "batch"} <= {row["what"] for row in result.rows}
