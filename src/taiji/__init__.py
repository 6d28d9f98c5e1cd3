"""Taiji: an LLM as enhancer for recommenders, from logs to a judged ranker.

The rooms, in the order data walks through them: ``data``, ``language``, ``reasoning``, ``ranking``,
``alignment``, ``features``, ``evaluation``, ``serving``; ``pipeline`` and ``cli`` sit on top.
"""

__version__ = "0.1.0"
