"""One file per component: ``python -m benchmarks.components [--only NAME] [--quick] [--json FILE]``."""
