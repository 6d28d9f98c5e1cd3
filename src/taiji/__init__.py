"""Taiji: recommenders trained from logs, an LLM that enhances them, and measurements of its value.

Packages, from the foundations up: ``core``, ``data``, ``metrics``, ``nn``, ``language``, ``world``, ``models``,
``reasoning``, ``features``, ``alignment``, ``experiments``, ``reporting``, ``serving``; ``pipeline`` and ``cli`` on
top.
"""

from taiji.core import moved

__version__ = "0.2.0"

moved.install()
