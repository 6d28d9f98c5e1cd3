"""Data types of the service, and the interfaces that other packages implement for it.

Ids are text here, exactly as in the tables; times are in microseconds since the epoch (UTC).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from taiji.core.errors import ConfigError

LAST_TIME = 2**62
"""Exclusive upper bound of event times, in microseconds; every store accepts all smaller times."""
ContextValue = str | int | float | bool | None
"""Value of one column of a request's context."""


class Unreadable(ValueError):
    """The store contains bytes that this version cannot read, for example because a newer version wrote them.

    The message does not quote these bytes.
    """


class Event(NamedTuple):
    """One action of one user.

    ``id`` is unique, and ids sort by arrival. An id consists of the time at which the batch arrived, the batch's hashed
    idempotency key, and the event's position in the batch.
    """

    id: str
    user: str
    item: str
    time: int
    click: int = 1
    conversion: int | None = None
    price: float | None = None

    def pack(self) -> bytes:
        """Return the event as a JSON array."""
        return json.dumps(self, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def unpack(cls, packed: bytes | str) -> Event:
        """Read the result of :meth:`pack`.

        Raises:
            Unreadable: the bytes are not an event; the message gives the reason.
        """
        try:
            values = json.loads(packed)
        except ValueError:
            raise Unreadable("not JSON in UTF-8") from None
        if not isinstance(values, list) or not NEEDED_FIELDS <= len(values) <= len(cls._fields):
            found = f"{len(values)} fields" if isinstance(values, list) else "not a list"
            raise Unreadable(f"{found} instead of {NEEDED_FIELDS} to {len(cls._fields)} fields")
        event = cls(*values)
        if wrong := [name for name, right in zip(cls._fields, event._right()) if not right]:
            raise Unreadable(f"wrong type or value: {', '.join(wrong)}")
        return event

    def _right(self) -> tuple[bool, ...]:
        flags = [type(value) is int and value in (0, 1) for value in (self.click, self.conversion)]
        price = self.price is None or (type(self.price) in (int, float) and math.isfinite(self.price))
        texts = (isinstance(text, str) for text in (self.id, self.user, self.item))
        time = type(self.time) is int and abs(self.time) < LAST_TIME
        return (*texts, time, flags[0], self.conversion is None or flags[1], price)


NEEDED_FIELDS = len(Event._fields) - len(Event._field_defaults)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that are accepted together or not at all.

    Attributes:
        key: hash of the API key's name and the client's idempotency key.
        digest: keyed digest of the body.
        source: name of the API key.
        former: key and digest computed as in version 0.2, to recognise batches that version 0.2 accepted.
    """

    key: str
    digest: str
    events: tuple[Event, ...]
    source: str = ""
    former: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class UserHistory:
    """The service's data about a user at the time ``as_of``; all ``events`` are strictly before this time.

    Attributes:
        seen: number of events ever absorbed for the user; it exceeds ``len(events)`` once older events are dropped.
        forgotten: True if the user was erased; the user's data in the run directory must then not be read.
    """

    user: str
    as_of: int
    events: tuple[Event, ...] = ()
    seen: int = 0
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Intents:
    """Intents of a feature row; see :data:`taiji.data.intent_rows.INTENTS`.

    Attributes:
        vectors: concatenated vectors of the intents, as int8 values.
        weights: weights of the intents, which sum to 1.
        levels: for each intent, the names of its categories, one per level; empty where the intent names none.
        embedder: ``name@version`` of the embedder that made the vectors.
    """

    vectors: tuple[int, ...]
    weights: tuple[float, ...]
    levels: tuple[tuple[str, ...], ...]
    embedder: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Intents | None:
        """Return the intents in a row of the feature table; None if the row has no intents."""
        if not row.get("intent_weights"):
            return None
        levels = tuple(tuple(level or "" for level in said) for said in row["intent_levels"])
        return cls(tuple(row["intents"]), tuple(row["intent_weights"]), levels, row["intent_embedder"])

    def columns(self) -> dict[str, Any]:
        """Return the intents as columns of a feature row."""
        return {
            "intents": self.vectors,
            "intent_weights": self.weights,
            "intent_levels": self.levels,
            "intent_embedder": self.embedder,
        }


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """Features of one user, written by one release: a row of the feature table with text ids and its provenance.

    Attributes:
        as_of: exclusive upper bound of the times of the data from which the row was made.
        generated_at: time from which the row can be read (``available_at`` of the feature table), set by the worker
            when it stores the row.
        intents: intents of the LLM's answer; None if the release's answers are not sets of intents, or if this answer
            has no intents.
    """

    user: str
    as_of: int
    ids: tuple[int, ...]
    neighbour: str | None
    neighbour_items: tuple[str, ...]
    model_version: str
    quantizer_version: str
    generated_at: int
    events_seen: int
    vector: tuple[float, ...] | None = None
    intents: Intents | None = None

    def head(self) -> bytes:
        """Return the row's JSON members without braces, and without release, version and the neighbour's items."""
        values: dict[str, Any] = {
            "user": self.user,
            "model_version": self.model_version,
            "quantizer_version": self.quantizer_version,
            "as_of": self.as_of,
            "generated_at": self.generated_at,
            "events_seen": self.events_seen,
            "ids": self.ids,
        }
        if self.vector is not None:
            values["vector"] = [round(value, 6) for value in self.vector]
        if self.intents is not None:
            values |= self.intents.columns()
        return json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()[1:-1]

    def tail(self) -> bytes:
        """Return the neighbour's items as a JSON array. The neighbour's id is stored, but never served."""
        return json.dumps(self.neighbour_items, separators=(",", ":"), ensure_ascii=False).encode()


class StoredRow(NamedTuple):
    """A feature row as it is stored: the release that wrote it, its version number, and its two JSON parts."""

    release: str
    version: int
    head: bytes
    tail: bytes

    def body(self) -> bytes:
        """Return the row as the JSON object that the API sends."""
        return b'{"release":%s,"feature_version":%d,%s,"neighbour_items":%s}' % (
            json.dumps(self.release).encode(),
            self.version,
            self.head,
            self.tail,
        )


@dataclass(frozen=True, slots=True)
class IntentRequest:
    """Request for a user's current intents.

    Attributes:
        features: the user's stored row, as a JSON object of the API; None if the user has no row.
    """

    history: UserHistory
    features: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StudentRow:
    """Intents that a release's student model computed for a user from all data before ``as_of``.

    Attributes:
        version: version of the student model.
        quantizer_version: quantiser version of the release.
    """

    user: str
    as_of: int
    events_seen: int
    intents: Intents
    version: str
    quantizer_version: str

    def body(self, release: str, features: Mapping[str, Any] | None, now: int) -> bytes:
        """Return the row as the JSON object that the API sends.

        It is the user's stored row ``features`` with these intents, or a row with these intents only if ``features``
        is None.
        """
        alone = {
            "release": release,
            "feature_version": 0,
            "user": self.user,
            "model_version": self.version,
            "quantizer_version": self.quantizer_version,
            "as_of": self.as_of,
            "generated_at": now,
            "events_seen": self.events_seen,
            "ids": [],
            "neighbour_items": [],
        }
        made = {"intents_by": self.version, "intents_as_of": self.as_of}
        return json.dumps(
            {**(features or alone), **self.intents.columns(), **made}, separators=(",", ":"), ensure_ascii=False
        ).encode()


@dataclass(frozen=True)
class Release:
    """Release of a run: the versions of model and quantiser under which its rows are written and read.

    The name consists of the run directory's name and shortened versions. If the run has no features, ``model_version``
    is the version of its recommender, and ``quantizer_version`` is empty.
    """

    name: str
    run: str
    model_version: str
    quantizer_version: str

    @property
    def features(self) -> bool:
        """True if there are features to write."""
        return bool(self.quantizer_version)

    def pack(self) -> str:
        """Return the release as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def unpack(cls, packed: str | bytes) -> Release:
        """Read the result of :meth:`pack`; ignore fields that newer versions added.

        Raises:
            Unreadable: the text is not a release.
        """
        try:
            values = json.loads(packed)
            return cls(**{name: values[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError):
            raise Unreadable("not a release of this version") from None


@dataclass(frozen=True, slots=True)
class Claim:
    """A user leased by a worker, with the data to write features from; ``attempts`` counts earlier failures."""

    history: UserHistory
    token: str
    attempts: int


@dataclass
class Usage:
    """Numbers of LLM tokens used since the writer was created."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class FeatureWriter(Protocol):
    """LLM, embedder, quantiser and look-alike search behind one call."""

    model_version: str
    quantizer_version: str
    usage: Usage

    def write(self, users: Sequence[UserHistory]) -> list[FeatureRow]:
        """Return one row per user, in order. If this raises an error, the worker tries the users one by one."""
        ...


@dataclass(frozen=True, slots=True)
class RankRequest:
    """Candidates for one user, with the context of the request.

    ``features`` is the user's newest feature row as a JSON object; None if the user has no row.
    """

    history: UserHistory
    items: tuple[str, ...]
    features: dict[str, Any] | None
    context: Mapping[str, ContextValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankResult:
    """Predictions of the ranker's goal (CTCVR by default) per candidate; None for a candidate not in the catalogue.

    ``with_features`` is None if the user has neither a row of the ranker's quantiser version nor intents from a
    student model. ``wrong_context`` gives the reason for each context column of the request that is not in the log, or
    whose value has a different type than in the log. If it is not empty, nothing is scored.
    """

    without_features: list[float | None] = field(default_factory=list)
    with_features: list[float | None] | None = None
    wrong_context: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecommendRequest:
    """Request for a list for one user.

    Attributes:
        length: number of items; None for the length of the run's lists.
        exclude: items that must not be in the list.
        context: as in :class:`RankRequest`.
        trace: True to return the path of every candidate.
        features: as in :class:`RankRequest`.
        spare: True to also return the items that would follow the list (up to its length again), so that they can be
            kept with the list. A recommender may ignore this.
    """

    history: UserHistory
    length: int | None = None
    exclude: tuple[str, ...] = ()
    context: Mapping[str, ContextValue] = field(default_factory=dict)
    trace: bool = False
    features: dict[str, Any] | None = None
    spare: bool = False


@dataclass(frozen=True, slots=True)
class RecommendResult:
    """A list and its origin.

    Attributes:
        items, scores, sources: items of the list, best first, with their scores and the retriever that contributed
            most.
        unknown: excluded items that are not in the catalogue.
        wrong_context: as in :class:`RankResult`; if set, nothing was retrieved.
        late: retrievers that were left out because they exceeded the time limit.
        failed: retrievers that were left out because they raised an error.
        unranked: number of candidates that were not ranked because of the time limit.
        seconds: duration of each step, for all requests that were answered together.
        trace: one row per candidate; None if not requested.
        until: end of each item's availability, in microseconds since the epoch; empty if every item stays available.
        spare: items that would follow the list, with their scores, sources and ``until``; None if not requested, or if
            the recommender selects lists as a whole.
        features: source of the features that the ranker read: ``request`` (the request's features, if they have the
            ranker's quantiser version), ``run`` (the user's row stored with the run), or ``none``.
    """

    items: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    sources: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    wrong_context: dict[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unranked: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    trace: list[dict[str, Any]] | None = None
    until: tuple[int, ...] = ()
    spare: RecommendResult | None = None
    features: Literal["request", "run", "none"] = "none"


class FeaturesOnly(ConfigError):
    """The ranker of a release cannot be used online, so that only the release's features are served."""


@runtime_checkable
class Scorer(Protocol):
    """Rankers of a release, with and without features."""

    def score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        """Return one result per request, in order."""
        ...


@runtime_checkable
class IntentSource(Protocol):
    """Student model of a release, which computes intents for users whose row has none or outdated ones."""

    @property
    def says_intents(self) -> bool:
        """True if the release has a student model."""
        ...

    def intents(self, requests: Sequence[IntentRequest]) -> list[StudentRow | None]:
        """Return one result per request; None if the row's intents are up to date, or if no intents can be computed."""
        ...


@runtime_checkable
class UserDirectory(Protocol):
    """Users of a release's run. Without this interface, a backend cannot report that a user is unknown."""

    def has_user(self, history: UserHistory) -> bool:
        """Return whether the run's data contain the user; False for an erased user."""
        ...


@runtime_checkable
class Recommender(Protocol):
    """Recommender of a release, which answers a request with a list."""

    def recommend(self, requests: Sequence[RecommendRequest]) -> list[RecommendResult]:
        """Return one result per request, in order.

        Raises:
            ResourceError: no retriever responded.
        """
        ...
