"""Worker that absorbs events, lets the LLM write features for many users at once, and stores the feature rows.

Two loops share the process. One continuously absorbs events from the queue, so that histories are current even while
the LLM is busy. The other claims users that are due, in batches. A batch that fails is repeated user by user, so that
one bad history does not affect the others; users that failed before are processed alone from the start. A batch that
hangs cannot be interrupted from within. Its users are therefore released, and the process stops and is restarted by
the supervisor. If the thread that absorbs events fails, the process stops as well, because it would otherwise look
alive without absorbing events.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from taiji.serving.clock import SteadyClock
from taiji.serving.logs import log, where
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store, StoreUnavailable, why
from taiji.serving.types import Claim, FeatureRow, FeatureWriter, Release

LEASE_SLACK_S = 30.0
BEAT_EVERY_S = 2.0
MAX_PROBE_S = 60.0
HUNG = 75
"""Exit code of a process that gave up on a hanging LLM."""
BROKEN = 70
"""Exit code of a process whose thread for absorbing events failed."""


class Worker:
    """Worker that writes the rows of one release.

    Args:
        store: store, shared with every other process.
        writer: feature writer of the release. None if the release has no features; the worker then only absorbs events.
        name: name that is stable across restarts, so that a restarted worker releases the leases of its earlier
            process.
        clock: steady clock in microseconds.
        die: function that ends the process (replaced in tests).
    """

    def __init__(
        self,
        store: Store,
        writer: FeatureWriter | None,
        release: Release,
        settings: ServingSettings,
        name: str,
        clock: Callable[[], int] | None = None,
        die: Callable[[int], object] = os._exit,
    ) -> None:
        self._store, self._writer, self._release, self._settings, self._name = (
            store,
            writer,
            release,
            settings.worker,
            name,
        )
        self._clock = clock or SteadyClock(store.clock_floor())
        self._die = die
        self._lease_us = int((2 * settings.worker.timeout_s + LEASE_SLACK_S) * 1e6)
        self._failed_batches = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._held: list[Claim] = []
        self._unsure = False
        self._next_beat = 0.0
        self.stopping = threading.Event()

    def run(self) -> None:
        """Work until :meth:`stop`; wait while the store fails."""
        absorber = threading.Thread(target=self._absorb_all, daemon=True)
        absorber.start()
        self._patiently(lambda: self._store.abandon(self._release.name, self._name, self._clock()))
        log("worker started", worker=self._name, release=self._release.name)
        self._repeat(self.step)
        absorber.join(timeout=5)
        log("worker stopped", worker=self._name)

    def stop(self) -> None:
        """Stop after the current LLM call, and release the leases of all users not yet processed.

        When the grace period ends, all leases are released and the process ends.
        """
        self.stopping.set()
        timer = threading.Timer(self._settings.grace_s, self._leave)
        timer.daemon = True
        timer.start()

    def _leave(self) -> None:
        try:
            self._give_back(self._held, "stopped", count=False)
        finally:
            self._die(0)

    def _absorb_all(self) -> None:
        try:
            self._repeat(self.absorb)
        except BaseException as error:
            log("absorbing events failed", worker=self._name, error=where(error))
            self._die(BROKEN)

    def _repeat(self, action: Callable[[], bool]) -> None:
        while not self.stopping.is_set():
            try:
                busy = action()
            except StoreUnavailable as error:
                log("store unavailable", worker=self._name, error=why(error))
                self.stopping.wait(0.5)
                continue
            if not busy:
                self.stopping.wait(self._settings.poll_s)

    def _patiently(self, action: Callable[[], object], until: int | None = None) -> bool:
        """Repeat an action until the store is available; return False if the time ``until`` or a stop comes first."""
        while True:
            try:
                action()
                return True
            except StoreUnavailable:
                if self.stopping.is_set() or (until is not None and self._clock() >= until):
                    return False
                time.sleep(0.2)

    def absorb(self) -> bool:
        """Absorb a batch of events, and return whether there were any; send a heartbeat every few seconds."""
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT_EVERY_S
            self._store.beat(self._name, {"kind": "worker", "release": self._release.name}, self._clock())
        return self._store.absorb(self._name, self._settings.absorb, self._clock()) > 0

    def step(self) -> bool:
        """Claim and write one batch; return whether there was one."""
        if self._writer is None:
            return False
        probing = self._failed_batches - self._settings.breaker
        if probing >= 0:
            self.stopping.wait(min(self._settings.backoff_s * 2 ** min(probing, 30), MAX_PROBE_S))
        now = self._clock()
        if self._unsure:  # the store may have leased users to this worker in a claim whose reply was lost
            self._store.abandon(self._release.name, self._name, now, count=False)
        self._unsure = True
        claims = self._store.claim(
            self._release.name, self._name, 1 if probing >= 0 else self._settings.batch, now, self._lease_us
        )
        self._unsure = False
        if not claims:
            return False
        healthy = self._write(claims, now + self._lease_us)
        self._failed_batches = 0 if healthy else self._failed_batches + 1
        return True

    def _write(self, claims: Sequence[Claim], lease_end: int) -> bool:
        """Write and store the features of claimed users; return whether any row was stored."""
        fresh = [claim for claim in claims if not claim.attempts]
        groups = deque(([fresh] if fresh else []) + [[claim] for claim in claims if claim.attempts])
        self._held, healthy, timeout = list(claims), False, int(self._settings.timeout_s * 1e6)
        while groups:
            group = groups.popleft()
            if self.stopping.is_set() or self._clock() + timeout > lease_end:
                self._give_back(
                    group, "not attempted: the worker is stopping, or its lease is about to expire", count=False
                )
                continue
            rows, reason = self._attempt(group)
            if rows is not None:
                healthy |= self._commit(group, rows, lease_end)
            elif len(group) > 1:
                groups.extend([claim] for claim in group)
            else:
                self._give_back(group, reason, count=True)
        self._held = []
        return healthy

    def _attempt(self, group: list[Claim]) -> tuple[list[FeatureRow] | None, str]:
        assert self._writer is not None
        watchdog = threading.Timer(self._settings.timeout_s, self._hung, args=(group,))
        watchdog.daemon = True
        watchdog.start()
        try:
            rows = self._writer.write([claim.history for claim in group])
        except Exception as error:  # any exception of the LLM is a failure of the batch, not of the worker
            log("writing failed", worker=self._name, users=len(group), error=where(error))
            return None, where(error)
        finally:
            watchdog.cancel()
        versions = (self._release.model_version, self._release.quantizer_version)
        fits = [row.user for row in rows] == [claim.history.user for claim in group]
        if not fits or any((row.model_version, row.quantizer_version) != versions for row in rows):
            log("rows rejected", worker=self._name, users=len(group))
            return None, "the writer returned rows for other users, or with other versions"
        return rows, ""

    def _commit(self, group: list[Claim], rows: list[FeatureRow], lease_end: int) -> bool:
        """Store rows; if the store is unavailable, wait while the lease lasts, because LLM calls are expensive."""
        assert self._writer is not None
        usage = self._writer.usage
        prompt, completion = (
            usage.prompt_tokens - self._prompt_tokens,
            usage.completion_tokens - self._completion_tokens,
        )
        self._prompt_tokens, self._completion_tokens = usage.prompt_tokens, usage.completion_tokens
        stored: list[bool] = []
        if not self._patiently(
            lambda: stored.extend(self._store.commit(self._release.name, group, *self._timed(rows))), lease_end
        ):
            return False
        self._store.count(
            rows=sum(stored),
            rows_discarded=len(stored) - sum(stored),
            prompt_tokens=prompt,
            completion_tokens=completion,
        )
        return any(stored)

    def _timed(self, rows: list[FeatureRow]) -> tuple[list[FeatureRow], int]:
        """Set ``generated_at`` to now, the time from which the rows can be read; return the rows and this time."""
        now = self._clock()
        return [replace(row, generated_at=now) for row in rows], now

    def _give_back(self, claims: Sequence[Claim], reason: str, *, count: bool) -> None:
        if claims:
            self._patiently(
                lambda: self._store.fail(self._release.name, claims, reason, self._clock(), count=count),
                self._clock() + 2_000_000,
            )
        if count and claims:
            self._patiently(lambda: self._store.count(failures=len(claims)), self._clock())

    def _hung(self, group: list[Claim]) -> None:
        log("LLM timed out", worker=self._name, users=len(group), seconds=self._settings.timeout_s)
        try:
            self._give_back(group, f"no response within {self._settings.timeout_s:g} s", count=True)
            self._give_back(
                [claim for claim in self._held if claim not in group],
                "the LLM timed out on other users of the same batch",
                count=False,
            )
        finally:  # on any exception of the store: leases expire by themselves, but a hanging process does not end
            self._die(HUNG)
