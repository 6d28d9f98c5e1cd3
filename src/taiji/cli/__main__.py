"""Entry point of ``python -m taiji.cli``."""

from taiji.cli import main

main()
