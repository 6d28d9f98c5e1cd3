"""Metrics with per-user values, floors, intervals, A/B simulation, off-policy estimates, the report."""
