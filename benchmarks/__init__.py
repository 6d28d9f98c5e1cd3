"""Benchmarks, one module per question; run one with ``python -m benchmarks.NAME [--quick] [--json FILE]``."""
