"""Bodies of requests and responses, with the descriptions of the OpenAPI page."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

ID = r"^[^\x00-\x1f\x7f]+$"
RFC3339 = r"^(19[7-9][0-9]|2[0-9]{3})-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
MAX_EVENTS, MAX_USERS, MAX_ITEMS, MAX_CONTEXT = 1000, 1000, 1000, 100
MAX_LIST = 500


def _whole(value: object) -> object:
    """Return a whole float as an integer (6 for 6.0), because JSON Schema counts 6.0 as an integer, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Flag = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=1)]
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
    """Base of all request bodies.

    A value of the wrong type is rejected, and so is an unknown field. An integer may be written as 6.0.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EventIn(Body):
    """Event of a user. A ``click`` of 1 is an interaction; ``conversion`` is missing or null while it is unknown."""

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
        """Return the time in microseconds since the epoch."""
        when = datetime.fromisoformat(self.timestamp)
        return int(when.timestamp()) * 1_000_000 + when.microsecond


class EventsIn(Body):
    """Batch of events, accepted as a whole or not at all."""

    events: Annotated[list[EventIn], Field(min_length=1, max_length=MAX_EVENTS)]


class EventsOut(BaseModel):
    """Number of stored events.

    ``duplicate`` is true if the batch was already accepted under this idempotency key; it was then not stored again.
    """

    accepted: int
    duplicate: bool


class UsersIn(Body):
    """Users whose features are requested."""

    users: Annotated[list[Id], Field(min_length=1, max_length=MAX_USERS)]


class Features(BaseModel):
    """A feature row. Times are in microseconds since the epoch, and the row uses only data from before ``as_of``.

    A row has intents if the run's language model answers with sets of intents. ``intents`` contains their concatenated
    int8 vectors, which were computed with ``intent_embedder``. If a row's intents are missing or outdated and the run
    has a student model, the student computes them at the time of the request. ``intents_by`` is then the student's
    version, and the intents use only data from before ``intents_as_of``. For a user without a stored row, the response
    has only these intents, with ``feature_version`` 0 and no ids.
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
    """One feature row per user, or null for a user without one, in the order of the request.

    All rows were read at the same time.
    """

    rows: list[Features | None]


class RankIn(Body):
    """Candidates for a user; ``context`` maps the names of context columns of the log to their values."""

    user: Id
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_ITEMS)]
    context: Annotated[dict[ColumnName, ContextValue], Field(max_length=MAX_CONTEXT)] = {}


class Score(BaseModel):
    """Two scores of one candidate: one without features, and one with features.

    A score is P(click and conversion). If the ranker predicts no conversions, it is the prediction of the log's first
    label; a ranker may also define another score. Both scores are null for an item that is not in the catalogue.
    ``with_features`` is also null if the user has neither a usable feature row nor intents from a student model.
    """

    item: str
    without_features: float | None
    with_features: float | None


class RankOut(BaseModel):
    """Scores in the order of the candidates. For ``known_user``, see ``RecommendOut``."""

    release: str
    known_user: bool | None
    feature_version: int | None
    scores: list[Score]


class RecommendIn(Body):
    """Request for a list for a user.

    The list has ``k`` items (by default, the length in the run's settings) and no item of ``exclude``. For
    ``context``, see ``RankIn``. With ``trace``, the response shows the path of every candidate through the cascade.
    """

    user: Id
    k: Annotated[int, Field(ge=1, le=MAX_LIST), BeforeValidator(_whole)] | None = None
    exclude: Annotated[list[Id], Field(max_length=MAX_ITEMS)] = []
    context: Annotated[dict[ColumnName, ContextValue], Field(max_length=MAX_CONTEXT)] = {}
    trace: bool = False


class Recommended(BaseModel):
    """An item of a list, with its score; ``source`` is the retriever that contributed most to finding it."""

    item: str
    score: float
    source: str


class RecommendOut(BaseModel):
    """List of items, best first; shorter than requested if there are fewer candidates.

    ``known_user`` is true if the data of the release's run or a later event contains the user. It is false for other
    users, and for an erased user without later events; the list is then made from an empty history. It is null if the
    backend cannot tell which users its runs contain.

    ``unknown_exclusions`` are excluded items that are not in the catalogue; they were ignored. ``late`` names the
    retrievers that were left out because they exceeded the time limit, and ``failed`` those that raised an error.
    ``unranked`` is the number of candidates that were left out because there was no time left to rank them.

    ``cached`` is true if the list was computed ``age_s`` seconds ago for an earlier request. If ``kept`` is false, that
    request was identical to this one. If ``kept`` is true, it may have been any earlier request of this user in the
    same context, and its list is shown again because of the load. ``made_at`` is the time at which ``release`` made the
    list, in microseconds since the epoch. ``features`` names the feature row that the ranker read: ``row`` for the
    user's newest row, which has the version ``feature_version``; ``run`` for the row stored with the run; or ``none``.
    """

    release: str
    known_user: bool | None
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
    """Result of an erasure: the number of other users' rows from which this user's items were removed.

    ``known_user`` states whether the user was known before the erasure (see ``RecommendOut``). It is false if the user
    had already been erased.
    """

    known_user: bool | None
    neighbours_rewritten: int


class ReleaseOut(BaseModel):
    """A live release."""

    model_config = ConfigDict(protected_namespaces=())
    name: str
    model_version: str
    quantizer_version: str


class ReleasesOut(BaseModel):
    """Releases: the active one, the previous one, and all live ones."""

    active: str | None
    previous: str | None
    live: list[ReleaseOut]


class ReleaseIn(Body):
    """Name of a release."""

    release: Id


class ActivateIn(ReleaseIn):
    """Name of a release to serve; with ``force``, even before its models are loaded and its features are written."""

    force: bool = False


class Letter(BaseModel):
    """Dead letter: a user whose features could not be written, or an event that could not be read."""

    release: str
    user: str
    reason: str
    attempts: int
    at: int


class LettersOut(BaseModel):
    """At most a thousand dead letters."""

    dead_letters: list[Letter]


class Retried(BaseModel):
    """Number of dead letters that are processed again."""

    retried: int


class State(BaseModel):
    """Readiness of the process; ``ranker`` and ``recommender`` are ``ready``, ``loading``, ``failed`` or ``none``."""

    status: str
    ranker: str | None = None
    recommender: str | None = None


class Problem(BaseModel):
    """Reason why a request was not answered: a stable code and a sentence.

    ``places`` are JSON pointers to the faulty values in the body.
    """

    code: str
    message: str
    places: list[str] | None = None
