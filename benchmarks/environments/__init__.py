"""Environments and charts of `benchmarks.pareto`, and environments of the benchmarks of copy and of retention."""
