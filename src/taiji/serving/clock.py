"""Monotonic clock for scheduling, which never goes back even if the machine's clock does.

Leases, coalescing windows, staleness and the rows' ``as_of`` compare times from several processes, some of which may
start after the machine's clock was set back. A process therefore reads the machine's clock only once, when it starts.
If the store's high-water mark (the latest time that a worker recorded there) is later, the process starts at this mark
instead. From then on, it adds the ticks of a clock that cannot be set. If the machine's clock is far ahead of the
supervisor's, the process starts at the supervisor's time instead. Otherwise the times that it writes would block other
processes until the real time catches up.
"""

from __future__ import annotations

import time


def wall_us() -> int:
    """Return the time of the machine's clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def _ticks_us() -> int:
    """Return the microseconds of a clock that cannot be set and, if possible, also counts while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return time.monotonic_ns() // 1000


MAX_JUMP_US = 3600 * 10**6
"""Largest accepted lead of the machine's clock over the supervisor's, in microseconds."""


class SteadyClock:
    """Callable that returns microseconds since the epoch and never decreases.

    Args:
        floor: the store's high-water mark, in microseconds; the clock starts at this time or later.
        supervisor: the supervisor's time, in microseconds. It replaces the machine's time if the machine's time is more
            than :data:`MAX_JUMP_US` later. None skips this check.
    """

    def __init__(self, floor: int = 0, supervisor: int | None = None) -> None:
        wall = wall_us()
        self.jumped = supervisor is not None and wall > supervisor + MAX_JUMP_US
        """True if the machine's clock was not accepted."""
        self._start = max(supervisor if self.jumped and supervisor is not None else wall, floor)
        self._ticks = _ticks_us()

    def __call__(self) -> int:
        return self._start + _ticks_us() - self._ticks
