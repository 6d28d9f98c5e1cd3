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
"""Environment variable: in a setting the password would be in `config.json` and in everybody's `ps`."""


class TriggerSettings(Settings):
    """Times at which a user's features are written anew."""

    window_s: float = Field(default=5.0, ge=0)
    """Seconds between a user's first new event and the work on it: the rest of the burst is taken along."""
    events: int = Field(default=20, ge=1)
    """This many unread events end the window at once."""
    staleness_s: float = Field(default=7 * 86400.0, ge=0)
    """A row older than this is written anew without an event (the world's prompts move on too); 0 never does that."""
    known_per_hour: float = Field(default=100_000.0, gt=0)
    """Users with features for whom one API key may ask at its full priority; further ones wait until nobody else does, or their turn."""
    strangers_per_hour: float = Field(default=1000.0, gt=0)
    """The same of users who have no features yet, as anybody can invent them."""


class WorkerSettings(Settings):
    """The worker's way of feeding the LLM, and what it does when that fails."""

    batch: int = Field(default=16, ge=1)
    """Users in one call of the LLM."""
    history: int = Field(default=100, ge=1)
    """Newest events kept for a user."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Longest time for one batch; a process that hangs longer ends itself and is started again."""
    attempts: int = Field(default=5, ge=1)
    """Failures after which a user goes to the dead letters, with the reason."""
    backoff_s: float = Field(default=2.0, ge=0)
    """Wait after a user's first failure; doubles with each further one, at most five minutes."""
    breaker: int = Field(default=3, ge=1)
    """Batches that fail as a whole in a row before the worker only probes with one user at a time."""
    poll_s: float = Field(default=0.05, gt=0)
    """Pause when there is nothing to do."""
    absorb: int = Field(default=500, ge=1)
    """Events taken from the queue at once."""
    grace_s: float = Field(default=30.0, ge=0)
    """On a graceful stop, time for the batch under way; what does not end in it is done after the next start."""


class LimitSettings(Settings):
    """Limits of one request, and of one key."""

    head_bytes: int = Field(default=16384, ge=1024)
    """Largest head of a request: its line and headers."""
    headers: int = Field(default=100, ge=1)
    """Headers of a request, at most."""
    head_s: float = Field(default=5.0, gt=0)
    """Longest time a client may take from connecting, or from a further request's first byte, to the end of the head."""
    body_bytes: int = Field(default=1 << 20, ge=1)
    """Largest request body."""
    body_s: float = Field(default=10.0, gt=0)
    """Longest time a client may take to send its body."""
    request_s: float = Field(default=10.0, gt=0)
    """Longest time for an answer."""
    wait_s: float = Field(default=1.0, gt=0)
    """Reasonable wait for a ranking or a list; from the load on at which it would be longer, requests get 503 at once."""
    rate: float = Field(default=5000.0, gt=0)
    """Requests a second and key, on average."""
    burst: int = Field(default=10000, ge=1)
    """Requests a key may send at once."""
    backlog: int = Field(default=1_000_000, ge=1)
    """Queued events from which on new ones are refused with 503 until the worker has caught up."""
    connections: int = Field(default=1000, ge=1)
    """Open connections of a process; beyond, those end whose clients keep it waiting the longest."""
    stall_s: float = Field(default=120.0, gt=0)
    """Wait of the oldest queued event from which on the service is not ready: no worker takes events in."""
    future_s: float = Field(default=3600.0, ge=0)
    """Largest lead of an event's time over our clock."""


class RecommendServingSettings(Settings):
    """Answers of ``POST /v1/recommend``."""

    cache_s: float = Field(default=10.0, ge=0)
    """Seconds for which the same question of a user about whom nothing new is known gets the same list; 0 makes every list anew."""
    cache_entries: int = Field(default=10_000, ge=1)
    """Lists kept by an HTTP process, at most."""
    policy: str = "overloaded"
    """Those who are shown the own list of before in place of one that is computed: nobody (`never`: without room a request gets 503), whoever would get
    503 otherwise (`overloaded`), from a load on those whose list is young (`threshold`), those who lose least by it (`critics`); or another
    entry point of the group `taiji.cache_policies` or `package.module:Name`."""
    policy_settings: dict[str, Any] = Field(default={})
    """Settings of the policy: `load` (of the room) and `age_s` of `threshold`; `critics` (a folder) and `chain` of `critics`."""
    kept_s: float = Field(default=86400.0, gt=0)
    """Age of a list, in seconds, from which on it is not shown again."""
    kept_users: int = Field(default=20_000, ge=1)
    """Users whose lists an HTTP process keeps, at most."""
    p50_ms: float = Field(default=40.0, gt=0)
    """Half of the answers should be faster; the metrics show it beside what they take."""
    p99_ms: float = Field(default=80.0, gt=0)
    """All answers but one in a hundred should be faster; slower ones are counted."""

    @property
    def keeps(self) -> bool:
        """True if lists are kept to be shown again."""
        return self.policy != "never"


class ServingSettings(Settings):
    """The near-online service of features and recommendations."""

    store: str = "sqlite"
    """``sqlite`` (a file in the run directory), ``sqlite:PATH``, or ``redis://HOST:PORT/DB``."""
    host: str = "127.0.0.1"
    """Address to bind to; anything beyond loopback needs API keys."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port; 0 takes a free one and prints it."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of a listener that answers ``/healthz`` alone, in a thread of its own: a probe there waits for no other request. 0 takes a free one and
    prints it; without a number there is none, and probes ask on the port of the API."""
    keys: Path | None = None
    """File of API keys, readable by its owner alone (mode 0600); the environment variable TAIJI_API_KEYS works too."""
    api_processes: int = Field(default=1, ge=1)
    """HTTP processes on the same port: one per core that rankings may take, as each computes on one thread (`OMP_NUM_THREADS` in the environment changes this)."""
    workers: int = Field(default=1, ge=0)
    """Worker processes a release; 0 serves what is there and takes events, but writes no features."""
    traces: bool = False
    """Send a span of each request by OpenTelemetry, whose own environment variables say where to (extra `otel`)."""
    drain_s: float = Field(default=0.0, ge=0)
    """On a graceful stop, seconds for which a process still answers while ``/readyz`` says that it ends: as long as a balancer needs to see it."""
    prefix: str = Field(default="taiji:", min_length=1)
    """Redis keys start with this."""
    idempotency_s: float = Field(default=7 * 86400.0, gt=0)
    """Time for which an idempotency key is remembered."""
    backend: str = "taiji.serving.backend"
    """Module with ``release``, ``rows``, ``writer`` and ``scorer`` for a run directory; your own may call a remote LLM."""
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
            raise ConfigError(  # not a ValueError, whose message would quote the value
                "The store's password is in a setting, where config.json and ps show it.",
                where="serving.store",
                expected="redis://HOST:PORT/DB or redis://USER@HOST:PORT/DB",
                found=without_password(value),
                fix=f"take it out, and set the environment variable {PASSWORD}",
            )
        return value


def without_password(store: str) -> str:
    """Return the place of a store as it may be shown: without user, password and options."""
    place, _, options = store.partition("?")
    shown = re.sub(r"//.*@", "//…@", place)
    return f"{shown}?…" if options else shown


def loopback(host: str) -> bool:
    """Return whether a host's name or address can only mean this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
