"""Small worlds, and the chi-square test without a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from taiji.world.scenario import load_scenario
from taiji.world.world import World

SIZES: dict[str, dict[str, Any]] = {"shop": {"users": 200, "items": 230, "days": 10}}


def small(name: str, seed: int = 0, **changes: Any) -> World:
    """A shipped scenario with few users and items."""
    sizes = {"users": 120, "items": 400, "candidates": 40} | SIZES.get(name, {})
    return World(load_scenario(name, **(sizes | changes)), seed)


def surprise(observed: ArrayLike, expected: ArrayLike, cells_fitted: int = 1) -> float:
    """How surprising counts are by chi-square, in standard deviations of a normal (Wilson and Hilferty 1931)."""
    o, e = np.asarray(observed, dtype=float).ravel(), np.asarray(expected, dtype=float).ravel()
    freedom = len(o) - cells_fitted
    ratio = ((o - e) ** 2 / e).sum() / freedom
    return float((ratio ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom)))


def coin_surprise(hits: ArrayLike, chances: ArrayLike) -> float:
    """The same for coins (N,) thrown once each: z of the number of hits."""
    hits, chances = np.asarray(hits, dtype=float), np.asarray(chances, dtype=float)
    return float(abs(hits.sum() - chances.sum()) / np.sqrt((chances * (1 - chances)).sum()))
