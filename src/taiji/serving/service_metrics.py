"""Prometheus metrics of one API process, and of queue and workers through the store."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from taiji.serving.clock import SteadyClock
from taiji.serving.store import Store, StoreUnavailable

LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STALENESS = (60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0, 30 * 86400.0)
COUNTERS = {
    "rows": "Feature rows written",
    "rows_discarded": "Rows whose lease was lost; another worker wrote them",
    "prompt_tokens": "LLM tokens read",
    "completion_tokens": "LLM tokens written",
    "failures": "Users whose writing failed (each is tried again)",
}


class Metrics:
    """Counters of one process; ``render`` gives the exposition text."""

    def __init__(self, store: Store, clock: SteadyClock) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "taiji_requests_total", "Answered requests", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "taiji_request_seconds", "Time to answer", ["route"], buckets=LATENCIES, registry=self._registry
        )
        self.refused = Counter("taiji_refused_total", "Refused requests", ["reason"], registry=self._registry)
        self.events = Counter("taiji_events_total", "Events taken in", registry=self._registry)
        self.staleness = Histogram(
            "taiji_feature_age_seconds", "Age of the rows that were read", buckets=STALENESS, registry=self._registry
        )
        self._registry.register(_StoreCollector(store, clock))  # type: ignore[arg-type]

    def render(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self._registry)


class _StoreCollector:
    def __init__(self, store: Store, clock: SteadyClock) -> None:
        self._store, self._clock = store, clock

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        try:
            counters, gauges = self._store.counters(), self._store.gauges(self._clock())
        except StoreUnavailable:
            yield GaugeMetricFamily("taiji_store_up", "Whether the store answers", value=0)
            return
        yield GaugeMetricFamily("taiji_store_up", "Whether the store answers", value=1)
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"taiji_{name}", text, value=counters.get(name, 0))
        for name, text, value in (
            ("taiji_queue_events", "Events not yet taken into histories", gauges.queued),
            ("taiji_queue_age_seconds", "Age of the oldest of them", gauges.queue_age),
            ("taiji_due_users", "Users waiting for the LLM", gauges.due),
            ("taiji_due_age_seconds", "How long the first of them is due", gauges.due_age),
            ("taiji_leased_users", "Users at the LLM", gauges.leased),
            ("taiji_dead_letters", "Users given up", gauges.dead),
            ("taiji_unreadable_events", "Events put aside because they could not be read", gauges.unreadable),
        ):
            yield GaugeMetricFamily(name, text, value=value)
