"""Taiji: recommenders trained from logs, an LLM that enhances them, and measurements of its value.

Packages from the lowest layer to the highest: ``core``, ``data``, ``metrics``, ``nn``, ``language``, ``world``,
``models``, ``reasoning``, ``features``, ``alignment``, ``copywriting``, ``cascade``, ``experiments`` and ``reporting``,
``serving``, ``config``, ``pipeline``, ``scale``, ``inspector``, ``cli``.
"""

from taiji.core import moved

__version__ = "0.2.0"

moved.install()
