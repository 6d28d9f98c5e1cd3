"""Readiness of one HTTP process, which means that it can answer all kinds of requests."""

from __future__ import annotations

import time

from taiji.serving.clock import SteadyClock
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store, StoreUnavailable, StoreUnusable

KEEP_S = 0.05
"""Seconds for which a positive result is reused, so that a flood of probes costs the store little."""
GONE_S = 120.0
"""Seconds without a living worker of the active release after which the process is not ready; long enough to load a
language model.
"""


class Readiness:
    """Check of the readiness of a process.

    Args:
        store, scorers, settings, clock: the objects that the process uses.
    """

    def __init__(self, store: Store, scorers: Scorers, settings: ServingSettings, clock: SteadyClock) -> None:
        self._store, self._scorers, self._settings, self._clock = store, scorers, settings, clock
        self._worker_seen = time.monotonic()
        self._until = 0.0
        self.draining = False
        """True once the process has received the signal to stop: it still answers, but should get no new requests."""

    @property
    def fresh(self) -> bool:
        """True if the process was found ready less than :data:`KEEP_S` ago and is not draining."""
        return not self.draining and time.monotonic() < self._until

    def reason(self) -> str:
        """Return the reason why the process is not ready; empty if it is ready."""
        if self.draining:
            return "The process is about to stop."
        if self.fresh:
            return ""
        try:
            self._store.check()
            reason = self._reason()
        except StoreUnusable as error:
            reason = f"The store cannot be used: {error}."
        except StoreUnavailable:
            reason = "The store does not respond."
        self._until = 0.0 if reason else time.monotonic() + KEEP_S
        return reason

    def _reason(self) -> str:
        scorers = self._scorers
        if scorers.trouble:
            return f"The list of releases cannot be refreshed: {scorers.trouble}."
        if scorers.active is None:
            return "No release is active yet."
        if scorers.state == "failed":
            return f"The models of the active release cannot be loaded: {scorers.reason}"
        if scorers.state == "loading":
            return "The models of the active release are being loaded."
        return self._reason_of_workers() if self._settings.workers else ""

    def _reason_of_workers(self) -> str:
        stall, now = self._settings.limits.stall_s, self._clock()
        if self._store.queue_age(now) > stall:
            return f"No worker is absorbing events: the oldest event has been queued for more than {stall:g} s."
        beats = self._store.beats(now).values()
        if any(beat.get("kind") == "worker" and beat["release"] == self._scorers.active for beat in beats):
            self._worker_seen = time.monotonic()
        if time.monotonic() > self._worker_seen + GONE_S:
            return f"No worker of the active release has given a sign of life in the last {GONE_S:g} s."
        return ""
