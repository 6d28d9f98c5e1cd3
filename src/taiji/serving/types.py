"""Data that moves through the service, and the two things it asks of the other packages.

Ids are text at this edge, exactly as in the tables; times are microseconds since the epoch (UTC).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from taiji.core.errors import ConfigError

LAST_TIME = 2**62
"""Times of events lie below this, which every store can hold."""
ContextValue = str | int | float | bool | None
"""Value of one column of a request's context."""


class Unreadable(ValueError):
    """Bytes in the store that this version cannot read, for instance because a newer one wrote them; the text quotes nothing."""


class Event(NamedTuple):
    """One action of one user. ``id`` is unique: the batch's idempotency key (hashed) and the place in the batch."""

    id: str
    user: str
    item: str
    time: int
    click: int = 1
    conversion: int | None = None
    price: float | None = None

    def pack(self) -> bytes:
        """The event as a JSON array."""
        return json.dumps(self, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def unpack(cls, packed: bytes | str) -> Event:
        """Inverse of :meth:`pack`.

        Raises:
            Unreadable: something else, with the reason.
        """
        try:
            values = json.loads(packed)
        except ValueError:
            raise Unreadable("not JSON in UTF-8") from None
        if not isinstance(values, list) or not NEEDED_FIELDS <= len(values) <= len(cls._fields):
            found = f"{len(values)} fields" if isinstance(values, list) else "no list"
            raise Unreadable(f"{found} where {NEEDED_FIELDS} to {len(cls._fields)} are known")
        event = cls(*values)
        if wrong := [name for name, right in zip(cls._fields, event._right()) if not right]:
            raise Unreadable(f"field {', '.join(wrong)} has another form")
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
    """Events that are taken in together or not at all.

    Attributes:
        key: hash of the name of an API key and the caller's idempotency key. digest: keyed one of the body.
        source: name of the API key.
        former: key and digest as version 0.2 made them; a batch that it took in is known for as long as keys are remembered.
    """

    key: str
    digest: str
    events: tuple[Event, ...]
    source: str = ""
    former: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class UserHistory:
    """Knowledge of the service about a user at ``as_of``: everything in ``events`` lies strictly before it.

    Attributes:
        seen: events ever taken in for the user; more than ``len(events)`` once older ones were dropped.
        forgotten: the user was erased once, so what the run directory knows about the user must not be read.
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
        vectors: int8, one intent after another. weights: of each, sum to 1. levels: categories that each names. embedder: ``name@version``.
    """

    vectors: tuple[int, ...]
    weights: tuple[float, ...]
    levels: tuple[tuple[str, ...], ...]
    embedder: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Intents | None:
        """Take those of a row of a feature table; None where it has none."""
        if not row.get("intent_weights"):
            return None
        levels = tuple(tuple(level or "" for level in said) for said in row["intent_levels"])
        return cls(tuple(row["intents"]), tuple(row["intent_weights"]), levels, row["intent_embedder"])

    def columns(self) -> dict[str, Any]:
        """Return them as columns of a feature row."""
        return {
            "intents": self.vectors,
            "intent_weights": self.weights,
            "intent_levels": self.levels,
            "intent_embedder": self.embedder,
        }


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One user's features as one release wrote them (the feature table's row with text ids and its provenance).

    Attributes:
        as_of: everything that the row was made from lies before it.
        generated_at: when it could first be read, ``available_at`` of the feature table; the worker sets it when it stores the row.
        intents: where answers are sets and this one named any.
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
        """JSON members without the braces, the feature version and whatever comes from the neighbour."""
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
        """The neighbour's items as a JSON array. The neighbour's own id is stored, but never served."""
        return json.dumps(self.neighbour_items, separators=(",", ":"), ensure_ascii=False).encode()


class StoredRow(NamedTuple):
    """A feature row as it lies in the store: the release that wrote it, its running number, its two JSON pieces."""

    release: str
    version: int
    head: bytes
    tail: bytes

    def body(self) -> bytes:
        """The row as the API answers it."""
        return b'{"release":%s,"feature_version":%d,%s,"neighbour_items":%s}' % (
            json.dumps(self.release).encode(),
            self.version,
            self.head,
            self.tail,
        )


@dataclass(frozen=True, slots=True)
class IntentRequest:
    """Question for a user's intents as of now.

    Attributes:
        features: the user's stored row as the API answers it; None where there is none.
    """

    history: UserHistory
    features: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StudentRow:
    """Intents that a student says of a user, from everything before ``as_of``.

    Attributes:
        version: of the student. quantizer_version: of the release.
    """

    user: str
    as_of: int
    events_seen: int
    intents: Intents
    version: str
    quantizer_version: str

    def body(self, release: str, features: Mapping[str, Any] | None, now: int) -> bytes:
        """Return the stored row with these intents in place of its own, or a row of them alone, as the API answers it."""
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
    """A model and quantiser version under which rows are written and read; named after its run directory and versions.

    A run without features has its recommender's version as model version, and no quantiser version.
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
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def unpack(cls, packed: str | bytes) -> Release:
        """Inverse of :meth:`pack`; what a newer version has added is left out.

        Raises:
            Unreadable: something else.
        """
        try:
            values = json.loads(packed)
            return cls(**{name: values[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError):
            raise Unreadable("not a release of this version") from None


@dataclass(frozen=True, slots=True)
class Claim:
    """A user whom a worker holds on lease, with what it needs to write features; ``attempts`` failed before."""

    history: UserHistory
    token: str
    attempts: int


@dataclass
class Usage:
    """LLM tokens since the writer was made."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class FeatureWriter(Protocol):
    """LLM, embedder, quantiser and look-alike search behind one call."""

    model_version: str
    quantizer_version: str
    usage: Usage

    def write(self, users: Sequence[UserHistory]) -> list[FeatureRow]:
        """One row a user, in order. May raise: the worker then tries the users one by one."""
        ...


@dataclass(frozen=True, slots=True)
class RankRequest:
    """Candidates for one user; ``features`` is the newest row's JSON object, or None; ``context`` is of the request."""

    history: UserHistory
    items: tuple[str, ...]
    features: dict[str, Any] | None
    context: Mapping[str, ContextValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankResult:
    """CTCVR per candidate, None for one that is not in the catalogue.

    ``with_features`` is None where the user has no row of the ranker's quantiser version. ``wrong_context`` lists columns of
    the context that the log does not have or whose value has another type, each with the reason; then nothing was scored.
    """

    without_features: list[float | None] = field(default_factory=list)
    with_features: list[float | None] | None = None
    wrong_context: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecommendRequest:
    """A list wanted for one user.

    Attributes:
        length: items; None: as many as the run's lists have.
        exclude: items that must not be in it.
        context: as in :class:`RankRequest`.
        trace: whether every candidate's way is wanted.
        features: as in :class:`RankRequest`.
        spare: whether as many items again are wanted that would follow the list, to be kept; a recommender may leave them out.
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
    """A list and how it came about.

    Attributes:
        items, scores, sources: best first; the source is the retriever that contributed most.
        unknown: excluded items that are not in the catalogue.
        wrong_context: as in :class:`RankResult`; if set, nothing was retrieved.
        late, failed: retrievers that were left out. unranked: candidates that were left out because time was up.
        seconds: step to the time that it took, together with the requests that were answered at once.
        trace: a row per candidate, where it was asked for.
        until: microseconds since the epoch from which on each item is not available; empty where no item ever ends.
        spare: what would follow the list, of which items, scores, sources and ``until`` are given; None where it was not asked for, or where lists
            are chosen as a whole, so that nothing follows.
        features: those that the ranker read: ``request`` those of the request, which are of its quantiser version; ``run`` the row that the
            run keeps of the user; ``none``.
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
    """A release whose ranker cannot be asked online, by choice of the model: its features are served, and it ranks elsewhere."""


@runtime_checkable
class Scorer(Protocol):
    """A release's rankers, with and without features."""

    def score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        """One result a request, in order."""
        ...


@runtime_checkable
class IntentSource(Protocol):
    """A release's student of intents: what it says where a user's row has none, or old ones."""

    @property
    def says_intents(self) -> bool:
        """True if the release has a student."""
        ...

    def intents(self, requests: Sequence[IntentRequest]) -> list[StudentRow | None]:
        """One result a request, in order; None where the row's own intents are to be used, or nothing is known of the user."""
        ...


@runtime_checkable
class Recommender(Protocol):
    """A release's way from a request to a list."""

    def recommend(self, requests: Sequence[RecommendRequest]) -> list[RecommendResult]:
        """One result a request, in order.

        Raises:
            ResourceError: no retriever answered.
        """
        ...
