"""Settings of the service."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings

PASSWORD = "TAIJI_STORE_PASSWORD"
"""Environment variable with the store's password. A setting would be visible in `config.json` and in `ps`."""


class TriggerSettings(Settings):
    """Conditions under which a user's features are written again."""

    window_s: float = Field(default=5.0, ge=0)
    """Seconds from a user's first new event until the user's features are written, so that further events of the same
    burst are included.
    """
    events: int = Field(default=20, ge=1)
    """Number of a user's new events at which the features are written at once, without waiting for `window_s`."""
    staleness_s: float = Field(default=7 * 86400.0, ge=0)
    """Age in seconds at which a row is rewritten even without new events, because prompts depend on the time; 0 for
    never."""
    known_per_hour: float = Field(default=100_000.0, gt=0)
    """Limit per API key: the number of users per hour, among those who already have features, whose rows are rewritten
    without delay because of events sent with this key. Further users are deferred and become due one by one at this
    rate; a worker rewrites their rows earlier only if no other user is waiting.
    """
    strangers_per_hour: float = Field(default=1000.0, gt=0)
    """Limit like `known_per_hour` for users without features; a client can invent any number of such users."""


class WorkerSettings(Settings):
    """Batches, time limits and retries of the worker."""

    batch: int = Field(default=16, ge=1)
    """Number of users per call of the LLM."""
    history: int = Field(default=100, ge=1)
    """Number of newest events kept per user."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Longest time for one batch, in seconds; a process that takes longer stops and is restarted."""
    attempts: int = Field(default=5, ge=1)
    """Number of failures after which a user becomes a dead letter, with the reason."""
    backoff_s: float = Field(default=2.0, ge=0)
    """Seconds to wait after a user's first failure; the wait doubles with each further failure, up to five minutes."""
    breaker: int = Field(default=3, ge=1)
    """Number of consecutive batches that fail completely before the worker tries only one user at a time."""
    poll_s: float = Field(default=0.05, gt=0)
    """Seconds to pause if there is nothing to do."""
    absorb: int = Field(default=500, ge=1)
    """Largest number of events taken from the queue at a time."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that the current batch may still take after the signal to stop; unfinished work is done after the next
    start."""


class LimitSettings(Settings):
    """Limits per request and per API key."""

    head_bytes: int = Field(default=16384, ge=1024)
    """Largest size in bytes of the head of a request (request line and headers)."""
    headers: int = Field(default=100, ge=1)
    """Largest number of headers of a request."""
    head_s: float = Field(default=5.0, gt=0)
    """Seconds within which the head of a request must arrive, from the start of the connection or, for a further
    request, from its first byte."""
    body_bytes: int = Field(default=1 << 20, ge=1)
    """Largest size of a request body, in bytes."""
    body_s: float = Field(default=10.0, gt=0)
    """Longest time that a client may take to send its body, in seconds."""
    request_s: float = Field(default=10.0, gt=0)
    """Longest time for a response, in seconds."""
    wait_s: float = Field(default=1.0, gt=0)
    """Longest acceptable waiting time for a ranking, a list or a batch of features, in seconds. Requests that would
    wait longer get 503 at once or, for a list, an earlier list (see `recommend.policy`).
    """
    rate: float = Field(default=5000.0, gt=0)
    """Average number of requests per second that a key may send."""
    burst: int = Field(default=10000, ge=1)
    """Number of requests that a key may send at once."""
    backlog: int = Field(default=1_000_000, ge=1)
    """Number of queued events at which new events get 503 until the workers have caught up."""
    connections: int = Field(default=1000, ge=1)
    """Largest number of open connections per process. If this number is exceeded, the connection whose client has kept
    the process waiting the longest is closed.
    """
    stall_s: float = Field(default=120.0, gt=0)
    """Waiting time in seconds of the oldest queued event above which the service is not ready, because no worker
    absorbs events.
    """
    future_s: float = Field(default=3600.0, ge=0)
    """Largest number of seconds by which an event may be ahead of the service's clock."""


class RecommendServingSettings(Settings):
    """Responses of ``POST /v1/recommend``."""

    cache_s: float = Field(default=10.0, ge=0)
    """Seconds for which an identical request gets the same list if the user has no new data; 0 to compute every
    list."""
    cache_entries: int = Field(default=10_000, ge=1)
    """Largest number of lists in the cache of an HTTP process."""
    policy: str = "overloaded"
    """Policy that decides which users are shown their earlier list instead of a newly computed one: `never` (no user;
    without capacity, a request gets 503), `overloaded` (users who would otherwise get 503), `threshold` (at or above a
    given load, users with a recent list), or `critics` (users who lose least by it). Other policies are named by an
    entry point of the group `taiji.cache_policies` or by `package.module:Name`.
    """
    policy_settings: dict[str, Any] = Field(default={})
    """Settings of the policy. For `threshold`: `load` (a share of the capacity) and `age_s` (seconds). For `critics`:
    `critics` (a folder) and `chain` (2 × 2 probabilities of the list that the user's next request gets; first row: after a
    newly computed list, second row: after an earlier list; first column: a new list, second column: an earlier list).
    """
    kept_s: float = Field(default=86400.0, gt=0)
    """Age, in seconds, at which a list is no longer shown again."""
    kept_users: int = Field(default=20_000, ge=1)
    """Largest number of users whose lists an HTTP process keeps."""
    p50_ms: float = Field(default=40.0, gt=0)
    """Target for the median time of a response; the metrics show it next to the measured time."""
    p99_ms: float = Field(default=80.0, gt=0)
    """Target for the 99th percentile of the time of a response; slower responses are counted."""

    @property
    def keeps(self) -> bool:
        """True if lists are kept to be shown again."""
        return self.policy != "never"


class ServingSettings(Settings):
    """Near-online service of features and recommendations."""

    store: str = "sqlite"
    """Store: ``sqlite`` (a file in the run directory), ``sqlite:PATH``, or ``redis://HOST:PORT/DB``."""
    host: str = "127.0.0.1"
    """Address to bind to; addresses other than loopback need API keys."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port; 0 chooses a free one and prints it."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of a listener that answers only ``/healthz``, in its own thread, so that a probe does not wait for other
    requests. 0 chooses a free port and prints it. By default there is no such listener, and probes use the port of the
    API.
    """
    keys: Path | None = None
    """File of API keys, readable only by its owner (mode 0600). The environment variable TAIJI_API_KEYS can add
    keys."""
    api_processes: int = Field(default=1, ge=1)
    """Number of HTTP processes on the same port. Use one per core that rankings may occupy, because each process
    computes on one thread (`OMP_NUM_THREADS` in the environment changes this).
    """
    workers: int = Field(default=1, ge=0)
    """Number of worker processes per release; with 0, existing features are served and events are accepted, but no
    features are written.
    """
    traces: bool = False
    """Send a span of each request to the address in OpenTelemetry's environment variables (needs the extra `otel`)."""
    drain_s: float = Field(default=0.0, ge=0)
    """Seconds for which a process still answers after the signal to stop, while ``/readyz`` reports the stop. Use the
    time that a load balancer needs to notice the stop.
    """
    prefix: str = Field(default="taiji:", min_length=1)
    """Prefix of the Redis keys."""
    idempotency_s: float = Field(default=7 * 86400.0, gt=0)
    """Seconds for which idempotency keys are remembered."""
    backend: str = "taiji.serving.backend"
    """Module with the functions ``release``, ``rows``, ``writer`` and ``scorer`` for a run directory; your own module
    may call a remote LLM.
    """
    trigger: TriggerSettings = TriggerSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    recommend: RecommendServingSettings = RecommendServingSettings()

    @field_validator("store")
    @classmethod
    def _without_password(cls, value: str) -> str:
        place, _, options = value.partition("?")
        user = re.search(r"//(.*)@", place)
        if (user and user[1].partition(":")[2]) or "password" in options.lower():
            raise ConfigError(  # not a ValueError, whose message would contain the value
                "The store's password is in a setting, where config.json and ps show it.",
                where="serving.store",
                expected="redis://HOST:PORT/DB or redis://USER@HOST:PORT/DB",
                found=without_password(value),
                fix=f"remove it, and set the environment variable {PASSWORD}",
            )
        return value


def without_password(store: str) -> str:
    """Return the address of a store in a form that may be shown: without user, password and options."""
    place, _, options = store.partition("?")
    shown = re.sub(r"//.*@", "//…@", place)
    return f"{shown}?…" if options else shown


def loopback(host: str) -> bool:
    """Return whether a host's name or address can only mean this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
