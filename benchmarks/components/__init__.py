"""Comparisons of single components with their baselines, one file per component. Run them by ``python -m
benchmarks.components [--only NAME]... [--quick] [--json FILE]``."""
