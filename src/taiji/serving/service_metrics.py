"""Prometheus metrics of the API processes and, read from the store, of queue and workers.

The supervisor gives its processes a folder in which prometheus_client stores their values, so that each process can
report the sum over all processes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from taiji.serving.clock import SteadyClock
from taiji.serving.settings import RecommendServingSettings
from taiji.serving.store import Store, StoreUnavailable
from taiji.serving.types import RecommendResult

LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STALENESS = (60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0, 30 * 86400.0)
AGES = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86400.0)
LATEST = 2000
"""Number of latest lists over whose times the quantiles are computed."""
EVERY = 50
"""Number of lists between two updates of the quantiles; during the first ``EVERY`` lists, every list updates them."""
COUNTERS = {
    "rows": "Feature rows written",
    "rows_discarded": "Rows that were not stored because the lease of their user was lost",
    "prompt_tokens": "LLM tokens read",
    "completion_tokens": "LLM tokens written",
    "failures": "Failed attempts to write a user's features (repeated until the user becomes a dead letter)",
}


class Metrics:
    """Metrics of one process; ``render`` returns them in Prometheus's text format."""

    def __init__(self, store: Store, clock: SteadyClock, recommend: RecommendServingSettings) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "taiji_requests_total", "Requests with a response", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "taiji_request_seconds", "Response time", ["route"], buckets=LATENCIES, registry=self._registry
        )
        self.refused = Counter("taiji_rejected_total", "Rejected requests", ["reason"], registry=self._registry)
        self.events = Counter("taiji_events_total", "Events accepted", registry=self._registry)
        self.staleness = Histogram(
            "taiji_feature_age_seconds", "Age of the rows that were read", buckets=STALENESS, registry=self._registry
        )
        self._store = _StoreCollector(store, clock)
        self._registry.register(self._store)  # type: ignore[arg-type]
        self._listed = 0
        self._slowest = recommend.p99_ms / 1e3
        self._times: deque[float] = deque(maxlen=LATEST)
        self._lists = Counter(
            "taiji_lists_total",
            "Lists by origin: computed by the cascade, from the cache, or kept",
            ["from"],
            registry=self._registry,
        )
        self._kept = Histogram(
            "taiji_kept_list_age_seconds",
            "Age of the kept lists that were shown again, by the release that made them",
            ["release"],
            buckets=AGES,
            registry=self._registry,
        )
        self._missing = Counter(
            "taiji_kept_lists_missing_total",
            "Requests for which there was neither capacity to compute a list nor a kept list to show",
            ["why"],
            registry=self._registry,
        )
        self._slow = Counter(
            "taiji_lists_over_budget_total", "Lists that took longer than the p99 budget", registry=self._registry
        )
        self._left_out = Counter(
            "taiji_retrievers_left_out_total",
            "Lists computed without a retriever that timed out or failed",
            ["retriever", "why"],
            registry=self._registry,
        )
        self._unranked = Counter(
            "taiji_lists_unranked_total",
            "Lists for which not all candidates could be ranked in time",
            registry=self._registry,
        )
        self._steps = Histogram(
            "taiji_list_step_seconds",
            "Time of a step of the cascade, per batch of requests",
            ["step"],
            buckets=LATENCIES,
            registry=self._registry,
        )
        budget = Gauge(
            "taiji_list_budget_seconds",
            "Time budget of a list",
            ["quantile"],
            registry=self._registry,
            multiprocess_mode="max",
        )
        self._taken = Gauge(
            "taiji_list_seconds",
            f"Latency of the latest {LATEST} lists of a process; the maximum over processes",
            ["quantile"],
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        for quantile, most in ((0.5, recommend.p50_ms), (0.99, recommend.p99_ms)):
            budget.labels(quantile).set(most / 1e3)

    def refuse(self, reason: str) -> None:
        """Count a rejected request or connection."""
        self.refused.labels(reason).inc()

    def note_list(self, found: RecommendResult, seconds: float, origin: Literal["cascade", "cache", "kept"]) -> None:
        """Count a response and its time."""
        self._lists.labels(origin).inc()
        self._times.append(seconds)
        self._listed += 1
        if self._listed <= EVERY or self._listed % EVERY == 0:
            for quantile in (0.5, 0.99):
                self._taken.labels(quantile).set(float(np.quantile(np.array(self._times), quantile)))
        self._slow.inc(seconds > self._slowest)
        if origin == "cascade":
            for why, names in (("late", found.late), ("failed", found.failed)):
                for name in names:
                    self._left_out.labels(name, why).inc()
            self._unranked.inc(found.unranked > 0)

    def note_kept(self, release: str, age_s: float) -> None:
        """Count a kept list that is shown again."""
        self._kept.labels(release).observe(age_s)

    def note_missing(self, why: str) -> None:
        """Count a request for which there is neither capacity nor a kept list."""
        self._missing.labels(why).inc()

    def note_cascade(self, found: Sequence[RecommendResult]) -> None:
        """Record the time of each cascade step, once per batch of requests."""
        for step, seconds in next((dict(result.seconds) for result in found if result.seconds), {}).items():
            self._steps.labels(step).observe(seconds)

    def render(self) -> bytes:
        """Return the metrics as text, over all processes that share the folder ``PROMETHEUS_MULTIPROC_DIR``."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        registry.register(self._store)  # type: ignore[arg-type]
        return generate_latest(registry)


class _StoreCollector:
    def __init__(self, store: Store, clock: SteadyClock) -> None:
        self._store, self._clock = store, clock

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        try:
            counters, gauges = self._store.counters(), self._store.gauges(self._clock())
        except StoreUnavailable:
            yield GaugeMetricFamily("taiji_store_up", "Whether the store responds", value=0)
            return
        yield GaugeMetricFamily("taiji_store_up", "Whether the store responds", value=1)
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"taiji_{name}", text, value=counters.get(name, 0))
        for name, text, value in (
            ("taiji_queue_events", "Events not yet absorbed into histories", gauges.queued),
            ("taiji_queue_age_seconds", "Age of the oldest event that is not yet absorbed", gauges.queue_age),
            ("taiji_due_users", "Users waiting for the LLM", gauges.due),
            ("taiji_due_age_seconds", "Time since the longest-waiting user became due", gauges.due_age),
            (
                "taiji_deferred_users",
                "Users deferred because the API key that sent their events exceeds its limit",
                gauges.deferred,
            ),
            ("taiji_leased_users", "Users leased by workers", gauges.leased),
            ("taiji_dead_letters", "Users whose features were given up after repeated failures", gauges.dead),
            ("taiji_unreadable_events", "Events set aside because they could not be read", gauges.unreadable),
        ):
            yield GaugeMetricFamily(name, text, value=value)
