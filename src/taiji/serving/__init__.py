"""Near-online serving: event intake, worker, feature store, HTTP API.

The LLM is triggered by behaviour, never by a request. ``POST /v1/events`` puts events into a durable queue. A worker
adds them to the users' histories, waits a moment for more events of the same burst, lets the LLM write, and stores one
versioned row per user. A ranking request only reads that row. ``from taiji.serving import serve, load`` loads nothing
heavy until it is used.
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
