"""Hardware needed for near-online features, computed from a few measured or assumed numbers.

Every formula is one line, so that it can be checked easily. ``docs/serving.md`` explains them.
"""

from __future__ import annotations

from pydantic import Field

from taiji.core.settings import Settings

DAY_S = 86_400.0


class Workload(Settings):
    """Behaviour of the users, and how often their features are updated.

    The defaults are the example in the documentation.
    """

    users: float = Field(default=400e6, gt=0)
    """Number of users who have features."""
    active_share: float = Field(default=0.3, ge=0, le=1)
    """Share of these users who are active on a day."""
    events_per_active: float = Field(default=30.0, ge=0)
    """Events per active user and day."""
    sessions_per_active: float = Field(default=2.0, ge=0)
    """Bursts of events (sessions) per active user and day. A burst causes at most one LLM call if it is shorter than
    `serving.trigger.window_s` and has fewer than `serving.trigger.events` events.
    """
    refresh_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the bursts that lead to an LLM call; 1 unless your client withholds the events of some bursts."""
    staleness_days: float = Field(default=7.0, ge=0)
    """Age in days at which a row is rewritten even without new events; 0 for never."""
    reads_per_active: float = Field(default=100.0, ge=0)
    """Ranking requests per active user and day."""
    peak: float = Field(default=2.5, ge=1)
    """Ratio of the rate in the busiest hour to the average rate."""


class Rates(Settings):
    """Speed and price of one GPU with a model."""

    prefill_per_s: float = Field(default=11_000.0, gt=0)
    """Tokens that a GPU reads per second."""
    decode_per_s: float = Field(default=3_900.0, gt=0)
    """Tokens that a GPU writes per second, over all sequences of the batch."""
    utilisation: float = Field(default=0.6, gt=0, le=1)
    """Share of a GPU's time that is used for this work."""
    gpu_hour: float = Field(default=2.0, ge=0)
    """Price of a GPU per hour."""


class Model(Rates):
    """Cost of one call of the LLM."""

    prompt_tokens: float = Field(default=1500.0, gt=0)
    """Tokens read per call."""
    cached_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompt tokens that are the same for all users and come from a prefix cache."""
    completion_tokens: float = Field(default=200.0, gt=0)
    """Tokens written per call: rationale and answer."""


class Store(Settings):
    """Size of the store's rows, and speed of its cores."""

    row_bytes: float = Field(default=2150.0, gt=0)
    """Bytes of a feature row in the store, including the Redis hash, the entry under its look-alike, and the due
    time."""
    event_bytes: float = Field(default=240.0, gt=0)
    """Bytes of an event in a history with the store's overhead."""
    history: float = Field(default=50.0, ge=0)
    """Average number of events kept per user."""
    releases: float = Field(default=2.0, ge=1)
    """Number of live releases; rows are stored once for each."""
    reads_per_core: float = Field(default=60_000.0, gt=0)
    """Row reads per second that one core of the store answers, in batches."""
    api_reads_per_core: float = Field(default=4_000.0, gt=0)
    """HTTP reads per second that one core of the API answers."""
    memory_gb: float = Field(default=64.0, gt=0)
    """Memory of one machine of the store."""
    replicas: float = Field(default=2.0, ge=1)
    """Copies of the store."""


class Size(Settings):
    """Hardware and cost. Rates are those at the peak unless the name contains ``day``."""

    events_per_s: float
    calls_per_day: float
    calls_per_s: float
    prompt_tokens_per_s: float
    completion_tokens_per_s: float
    gpus: float
    gpu_cost_per_day: float
    cost_per_million_users_day: float
    reads_per_s: float
    api_cores: float
    store_cores: float
    store_gb: float
    store_machines: float
    seconds_per_call: float


def size(workload: Workload | None = None, model: Model | None = None, store: Store | None = None) -> Size:
    """Return the rates of events, calls and reads, and the GPUs, store machines and cost that they need.

    A call occupies a GPU for ``prompt·(1 − cached)/prefill + completion/decode`` seconds, divided by the utilisation.
    GPUs are sized for the peak and paid all day. Calls come from the bursts of active users, and from staleness: the
    features of users who are inactive on a day are written once per ``staleness_days``.
    """
    w, m, s = workload or Workload(), model or Model(), store or Store()
    active = w.users * w.active_share
    triggered = active * w.sessions_per_active * w.refresh_share
    stale = (w.users - active) / w.staleness_days if w.staleness_days else 0.0
    calls_day = triggered + stale
    calls = calls_day / DAY_S * w.peak
    read, written = m.prompt_tokens * (1 - m.cached_share), m.completion_tokens
    seconds = (read / m.prefill_per_s + written / m.decode_per_s) / m.utilisation
    gpus = calls * seconds
    cost = gpus * 24 * m.gpu_hour
    reads = active * w.reads_per_active / DAY_S * w.peak
    gigabytes = w.users * (s.row_bytes * s.releases + s.event_bytes * s.history) * s.replicas / 1e9
    return Size(
        events_per_s=active * w.events_per_active / DAY_S * w.peak,
        calls_per_day=calls_day,
        calls_per_s=calls,
        prompt_tokens_per_s=calls * read,
        completion_tokens_per_s=calls * written,
        gpus=gpus,
        gpu_cost_per_day=cost,
        cost_per_million_users_day=cost / (w.users / 1e6),
        reads_per_s=reads,
        api_cores=reads / s.api_reads_per_core,
        store_cores=reads / s.reads_per_core,
        store_gb=gigabytes,
        store_machines=gigabytes / s.memory_gb,
        seconds_per_call=seconds,
    )
