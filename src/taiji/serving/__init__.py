"""Near-online serving: event intake, worker, feature store, HTTP API.

The LLM runs after user events, never during a request. ``POST /v1/events`` puts events into a durable queue. A worker
adds them to the users' histories, waits briefly for more events of the same burst, generates features with the LLM, and
stores one versioned row per user. A ranking request only reads that row. Importing this package loads nothing heavy:
each name is imported from its module on first access.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.lazy import lazy_names

if TYPE_CHECKING:
    from taiji.serving.releases import repair_clock, roll_back, roll_out
    from taiji.serving.supervisor import serve
    from taiji.serving.traffic import load

__all__ = ["load", "repair_clock", "roll_back", "roll_out", "serve"]

_HOMES = {
    "load": "traffic",
    "repair_clock": "releases",
    "roll_back": "releases",
    "roll_out": "releases",
    "serve": "supervisor",
}
__getattr__ = lazy_names(__name__, _HOMES)
