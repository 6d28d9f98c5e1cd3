"""Metrics with per-user values, intervals and baselines."""
