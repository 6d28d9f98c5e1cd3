"""The serving benchmark in short."""

from __future__ import annotations

from benchmarks import serving


def test_the_serving_benchmark_runs() -> None:
    result = serving.measure(quick=True)
    # A share of throughput is of an idle machine; here other tests run beside it, and the benchmark itself holds the bar.
    correct = [check for check in result.checks if "throughput" not in check.name]
    assert correct and all(check.holds for check in correct), result
    assert all(check.value > 0 for check in result.checks if "throughput" in check.name), result
    assert {"read", "write", "rank", "batch"} <= {row["what"] for row in result.rows}
