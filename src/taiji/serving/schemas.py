"""Bodies of requests and answers, as the OpenAPI page shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

ID = r"^[^\x00-\x1f\x7f]+$"
RFC3339 = r"^(19[7-9][0-9]|2[0-9]{3})-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
MAX_EVENTS, MAX_USERS, MAX_ITEMS, MAX_CONTEXT = 1000, 1000, 1000, 100
MAX_LIST = 500


def _whole(value: object) -> object:
    """Return 6 for 6.0, which JSON Schema calls an integer, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Flag = Annotated[int, Field(ge=0, le=1)]
Id = Annotated[str, Field(min_length=1, max_length=256, pattern=ID)]
ColumnName = Annotated[str, Field(min_length=1, max_length=256)]
ContextValue = (
    Annotated[str, Field(max_length=256)]
    | bool
    | Annotated[int, Field(gt=-(2**63), lt=2**63)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | None
)


class Body(BaseModel):
    """Nothing is converted, nothing unknown is accepted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EventIn(Body):
    """One action. ``click`` 1 is an interaction; ``conversion`` is left out or null while it is unknown."""

    user_id: Id
    item_id: Id
    timestamp: Annotated[
        str, Field(pattern=RFC3339, json_schema_extra={"format": "date-time", "examples": ["2026-01-31T12:00:00Z"]})
    ]
    click: Flag = 1
    conversion: Flag | None = None
    price: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None

    @field_validator("timestamp")
    @classmethod
    def _exists(cls, value: str) -> str:
        if datetime.fromisoformat(value).year < 1971:
            raise ValueError("a time after 1970 is expected")
        return value

    def time(self) -> int:
        """Microseconds since the epoch."""
        when = datetime.fromisoformat(self.timestamp)
        return int(when.timestamp()) * 1_000_000 + when.microsecond


class EventsIn(Body):
    """A batch, taken in as a whole or not at all."""

    events: Annotated[list[EventIn], Field(min_length=1, max_length=MAX_EVENTS)]


class EventsOut(BaseModel):
    """``accepted`` events are stored; ``duplicate``: this idempotency key had brought them before."""

    accepted: int
    duplicate: bool


class UsersIn(Body):
    """Users whose features are wanted."""

    users: Annotated[list[Id], Field(min_length=1, max_length=MAX_USERS)]


class Features(BaseModel):
    """A feature row. Times are microseconds since the epoch; nothing at or after ``as_of`` was read to make it.

    The four columns of intents are there where answers are sets: ``intents`` holds int8 vectors of ``intent_embedder``, one after another. Where the
    run's student said them just now, because the row had none or old ones, ``intents_by`` is its version and ``intents_as_of`` its time: nothing at or
    after that was read. A user without a stored row gets such intents alone, with ``feature_version`` 0 and no ids.
    """

    model_config = ConfigDict(protected_namespaces=())
    release: str
    feature_version: int
    user: str
    model_version: str
    quantizer_version: str
    as_of: int
    generated_at: int
    events_seen: int
    ids: list[int]
    vector: list[float] | None = None
    intents: list[int] | None = None
    intent_weights: list[float] | None = None
    intent_levels: list[list[str]] | None = None
    intent_embedder: str | None = None
    intents_by: str | None = None
    intents_as_of: int | None = None
    neighbour_items: list[str]


class FeaturesOut(BaseModel):
    """One row or null a user, in the order of the question, all of one moment."""

    rows: list[Features | None]


class RankIn(Body):
    """Candidates for a user, and the request's context: columns that the mapping declares as context, one value each."""

    user: Id
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_ITEMS)]
    context: Annotated[dict[ColumnName, ContextValue], Field(max_length=MAX_CONTEXT)] = {}


class Score(BaseModel):
    """P(click and conversion) of one candidate, null for one that is not in the catalogue.

    ``with_features`` is null, too, where there is no row to use.
    """

    item: str
    without_features: float | None
    with_features: float | None


class RankOut(BaseModel):
    """Scores in the order of the candidates."""

    release: str
    feature_version: int | None
    scores: list[Score]


class RecommendIn(Body):
    """A list wanted for a user.

    ``k`` items, by default as many as the run's lists have; none of those in ``exclude``; ``context`` as for ranking.
    ``trace`` brings every candidate's way through the cascade.
    """

    user: Id
    k: Annotated[int, Field(ge=1, le=MAX_LIST), BeforeValidator(_whole)] | None = None
    exclude: Annotated[list[Id], Field(max_length=MAX_ITEMS)] = []
    context: Annotated[dict[ColumnName, ContextValue], Field(max_length=MAX_CONTEXT)] = {}
    trace: bool = False


class Recommended(BaseModel):
    """An item of a list, with its score and the retriever that contributed most to its being found."""

    item: str
    score: float
    source: str


class RecommendOut(BaseModel):
    """The list, best first; shorter than asked where there are fewer candidates.

    ``unknown_exclusions`` are not in the catalogue and were ignored. ``late`` and ``failed`` retrievers were left out, as were
    ``unranked`` candidates, because time was up. ``cached``: the list was made before this request, ``age_s`` seconds ago, a moment ago for the
    same question, or, if it is ``kept``, earlier for this user, because of the load. ``made_at`` is when, in microseconds since the epoch; ``release``
    made it.
    ``features``: the ranker read the user's newest ``row``, whose version is ``feature_version``; the row that the ``run`` keeps;
    or ``none``.
    """

    release: str
    items: list[Recommended]
    unknown_exclusions: list[str]
    late: list[str]
    failed: list[str]
    unranked: int
    cached: bool
    kept: bool
    made_at: int
    age_s: float
    features: Literal["row", "run", "none"]
    feature_version: int | None = None
    trace: list[dict[str, str | int | float | None]] | None = None


class Erased(BaseModel):
    """Rows of other users that carried this user's items and lost them."""

    neighbours_rewritten: int


class ReleaseOut(BaseModel):
    """A live release."""

    model_config = ConfigDict(protected_namespaces=())
    name: str
    model_version: str
    quantizer_version: str


class ReleasesOut(BaseModel):
    """Releases: the one that is read, the one before, those that are live."""

    active: str | None
    previous: str | None
    live: list[ReleaseOut]


class ReleaseIn(Body):
    """Name of a release."""

    release: Id


class ActivateIn(ReleaseIn):
    """Name of a release that is to be served; with ``force`` even before its models are loaded and its features written."""

    force: bool = False


class Letter(BaseModel):
    """A user given up."""

    release: str
    user: str
    reason: str
    attempts: int
    at: int


class LettersOut(BaseModel):
    """At most a thousand dead letters."""

    dead_letters: list[Letter]


class Retried(BaseModel):
    """Number of users that are due again."""

    retried: int


class State(BaseModel):
    """Readiness of the process; ``ranker`` and ``recommender`` are ready, loading, failed or none."""

    status: str
    ranker: str | None = None
    recommender: str | None = None


class Problem(BaseModel):
    """Reason why a request was not answered: a stable code and a sentence. ``places`` are JSON pointers into the body."""

    code: str
    message: str
    places: list[str] | None = None
