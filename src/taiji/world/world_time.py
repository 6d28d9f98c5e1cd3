"""Time of a world: days since its start, slots, and demand over the day."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.world.shop import OPENING

Array = NDArray[Any]
DAY = 86_400_000_000
"""Length of a day in microseconds."""
START = int((OPENING - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
"""Start of every world, in microseconds since the epoch."""
PEAK = 20 / 24
"""Time of day of the highest demand, in days."""
_GRID = np.linspace(0.0, 1.0, 4097)


def to_micros(days: Array) -> Array:
    """Convert days since the start to microseconds since the epoch."""
    return START + np.round(days * DAY).astype(np.int64)


def to_days(micros: Array) -> Array:
    """Convert microseconds since the epoch to days since the start."""
    return (np.asarray(micros, dtype=np.int64) - START) / DAY


def demand(days: Array, swing: float) -> Array:
    """Return the demand at times in days; its daily mean is 1, and ``swing`` is its amplitude."""
    return np.asarray(1 + swing * np.cos(2 * np.pi * (days - PEAK)))


def demand_until(days: Array, swing: float) -> Array:
    """Return the integral of :func:`demand` from 0 to ``days``."""
    wave = np.sin(2 * np.pi * (days - PEAK)) + np.sin(2 * np.pi * PEAK)
    return np.asarray(days + swing / (2 * np.pi) * wave)


def when(felt: Array, swing: float) -> Array:
    """Return the time in days at which :func:`demand_until` reaches ``felt`` (to 1e-7 of a day)."""
    whole = np.floor(felt)
    return np.asarray(whole + np.interp(felt - whole, _felt(swing), _GRID))


@cache
def _felt(swing: float) -> Array:
    return demand_until(_GRID, swing)
