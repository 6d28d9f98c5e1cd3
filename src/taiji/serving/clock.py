"""A clock for scheduling that never goes back, whatever the machine's clock does.

Leases, coalescing windows, staleness and the rows' ``as_of`` compare times taken by several processes, some of them
started after the machine's clock was set back. A process therefore reads the machine's clock once, at its start, takes
the store's high-water mark if that is later, and counts on from there by a clock that cannot be set. A process that starts under a
clock far ahead of its supervisor's, which runs longer, takes the supervisor's time: what it wrote would be in everybody's way for as
long as the clock was ahead.
"""

from __future__ import annotations

import time


def wall_us() -> int:
    """The machine's clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def _ticks_us() -> int:
    """Microseconds of a clock nobody sets; it goes on while the machine sleeps, where the system has such a one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return time.monotonic_ns() // 1000


MAX_JUMP_US = 3600 * 10**6
"""Lead of the machine's clock over the supervisor's that is believed."""


class SteadyClock:
    """Callable; microseconds since the epoch, never less than before.

    Args:
        floor: the store's mark; the clock starts at no less.
        supervisor: the supervisor's time; the clock starts at no more than :data:`MAX_JUMP_US` later.
    """

    def __init__(self, floor: int = 0, supervisor: int | None = None) -> None:
        wall = wall_us()
        self.jumped = supervisor is not None and wall > supervisor + MAX_JUMP_US
        """True if the machine's clock was not believed."""
        self._start = max(supervisor if self.jumped and supervisor is not None else wall, floor)
        self._ticks = _ticks_us()

    def __call__(self) -> int:
        return self._start + _ticks_us() - self._ticks
