"""Features of a timestamp (hour, weekday, gap), and a network that encodes them as a vector. The vector is added to a
token, and is initially zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

HOUR, DAY, WEEK = 3_600_000_000, 86_400_000_000, 7 * 86_400_000_000
"""Lengths of an hour, a day and a week in microseconds."""
WIDTH = 5


def time_features(times: NDArray[Any], before: NDArray[Any]) -> NDArray[np.float32]:
    """Return time features (…, 5): sine and cosine of the time of day, sine and cosine of the time of the week, and 0.1
    · log(1 + hours since ``before``).

    Args:
        times, before: (…) times in microseconds since the epoch, UTC. If a time is earlier than ``before``, the gap
            counts as zero.
    """
    day, week = 2 * np.pi * (times % DAY) / DAY, 2 * np.pi * (times % WEEK) / WEEK
    gap = np.log1p(np.maximum(times - before, 0) / HOUR) / 10
    return np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week), gap], axis=-1).astype(np.float32)


class TimeEncoding(nn.Sequential):
    """Two-layer network that maps time features (…, 5) to vectors (…, d). The last layer is initially zero."""

    def __init__(self, width: int) -> None:
        last = nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(WIDTH, width), nn.GELU(), last)
