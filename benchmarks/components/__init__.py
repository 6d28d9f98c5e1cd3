"""One file a component: ``python -m benchmarks.components [--only NAME] [--quick] [--json FILE]``."""
