"""HTTP routes, which translate between HTTP and the store or the models. The gate has already checked the request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from taiji import __version__
from taiji.serving import schemas as s
from taiji.serving.admission import MOST, Admission
from taiji.serving.batching import Batcher, Overloaded
from taiji.serving.clock import SteadyClock
from taiji.serving.documentation import documentation
from taiji.serving.gate import BUSY, KEY, LARGE, Gate, Rejected, overloaded
from taiji.serving.keys import Keyring
from taiji.serving.logs import log
from taiji.serving.openapi import describe, responses, takes
from taiji.serving.readiness import Readiness
from taiji.serving.recommendations import Recommendations, wrong_context
from taiji.serving.releases import unprepared
from taiji.serving.request_bodies import event_batch, idempotency_key, joined, json_body, parsed, user_id
from taiji.serving.scorers import Scorers
from taiji.serving.scrubbing import Scrubbing
from taiji.serving.service_metrics import Metrics
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Appended, Releases, Store, StoreUnavailable, StoreUnusable, why
from taiji.serving.types import (
    EventBatch,
    IntentRequest,
    RankRequest,
    RankResult,
    StoredRow,
    StudentRow,
    UserHistory,
)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
MAX_LETTERS = 1000
ACTIVATE_WAIT_S = 2.0
UNKNOWN = "This user is unknown or was erased: neither the remaining data of the run nor later events contain the id."
LINGER = 0.05
"""Waiting time before the next batch of rankings, as a share of the time of the last batch. Waiting is worthwhile
because a ranking in a batch of eight takes half the time of a ranking on its own.
"""


class Service:
    """State shared by the routes: the store (through batchers), the rankers, the clock and the metrics."""

    def __init__(
        self, store: Store, scorers: Scorers, settings: ServingSettings, clock: SteadyClock, metrics: Metrics
    ) -> None:
        self.store, self.scorers, self.settings, self.clock, self.metrics = store, scorers, settings, clock, metrics
        self.rows: Batcher[str, StoredRow | None] = Batcher(store.read, 256, 10_000)
        self.histories: Batcher[str, UserHistory] = Batcher(lambda users: store.histories(users, clock()), 64, 1000)
        self.states: Batcher[str, tuple[StoredRow | None, UserHistory]] = Batcher(self._states, 64, 1000)
        self.past: Batcher[Sequence[str], list[UserHistory]] = Batcher(
            partial(at_once, lambda users: store.histories(users, clock())), 16, 1000
        )
        self.student: Batcher[Sequence[tuple[str, IntentRequest]], list[StudentRow | None]] = Batcher(
            partial(at_once, scorers.intents), 16, 1000
        )
        self.intake: Batcher[EventBatch, Appended] = Batcher(lambda batches: store.append(batches, clock()), 64, 1000)
        wait = settings.limits.wait_s
        lists = Admission(wait, Admission(wait) if settings.recommend.keeps else None)
        reads = Admission(wait)
        self.admissions = {"/v1/rank": Admission(wait), "/v1/recommend": lists, "/v1/features:batch": reads}
        self.batches: Batcher[Sequence[str], tuple[list[StoredRow | None], bytes | None]] = Batcher(
            self._read_many, 16, MOST, patience_s=2 * wait, told=reads.note
        )
        self.bodies: Batcher[Callable[[], Any], Any] = Batcher(
            lambda jobs: [job() for job in jobs], 1, 1000, patience_s=2 * wait
        )
        self.ranks: Batcher[tuple[str, RankRequest], RankResult] = Batcher(
            scorers.score,
            16,
            MOST,
            apart=True,
            patience_s=2 * wait,
            told=self.admissions["/v1/rank"].note,
            linger=LINGER,
        )
        self.lists = Recommendations(
            scorers, self.rows, self.histories, settings.recommend, metrics, clock, lists, 2 * wait
        )
        self.readiness = Readiness(store, scorers, settings, clock)
        self.scrubbing = Scrubbing(store)

    def _states(self, users: Sequence[str]) -> list[tuple[StoredRow | None, UserHistory]]:
        """Return the rows and histories of users.

        Rows are read after histories, so that a history that shows an erasure is never paired with an earlier row.
        """
        histories = self.store.histories(users, self.clock())
        return list(zip(self.store.read(users), histories, strict=True))

    def _read_many(self, asked: Sequence[Sequence[str]]) -> list[tuple[list[StoredRow | None], bytes | None]]:
        """Read the rows of several requests from the store at once; return each request's rows and encoded response.

        The encoded response is None if the release of any row has a student model, which may have to compute intents.
        """
        found = at_once(self.store.read, asked)
        for rows in found:
            self.note_ages(rows)
        return [
            (rows, None if self.says_intents(rows) else joined([row.body() if row else None for row in rows]))
            for rows in found
        ]

    def erase(self, user: str) -> tuple[bool | None, int]:
        """Erase a user. Return whether the user was known, and how many rows of other users were rewritten."""
        now = self.clock()
        (history,) = self.store.histories([user], now)
        known = self.scorers.knows(self.scorers.active, history)
        neighbours = self.store.erase(user, now)
        self.scrubbing.want()
        return known, neighbours

    async def read(self, body: bytes, work: Callable[[bytes], T]) -> T:
        """Return the result of ``work`` on a body.

        Large bodies are processed one at a time, outside the event loop.

        Raises:
            Overloaded: the body has waited too long for other large bodies.
        """
        if len(body) <= LARGE:
            return work(body)
        found: T = await self.bodies(partial(work, body))
        return found

    def note_ages(self, rows: Sequence[StoredRow | None]) -> None:
        """Record the ages of rows in the metrics."""
        now = self.clock()
        for row in rows:
            if row is not None:
                start = row.head.index(b'"as_of":') + 8
                self.metrics.staleness.observe((now - int(row.head[start : row.head.index(b",", start)])) / 1e6)

    def says_intents(self, rows: Sequence[StoredRow | None]) -> bool:
        """Return whether the release of any row has a student model; a missing row counts as one of the active
        release."""
        return any(self.scorers.says_intents(row.release if row else self.scorers.active) for row in rows)

    async def answers(self, users: Sequence[str], rows: Sequence[StoredRow | None]) -> list[bytes | None]:
        """Return the encoded rows; the student model of a row's release computes missing or outdated intents."""
        bodies = [row.body() if row else None for row in rows]
        releases = [row.release if row else self.scorers.active for row in rows]
        asked = [place for place, release in enumerate(releases) if self.scorers.says_intents(release)]
        if not asked:
            return bodies
        features = {place: json.loads(body) if (body := bodies[place]) else None for place in asked}
        histories = await self.past([users[place] for place in asked])
        questions = [IntentRequest(history, features[place]) for place, history in zip(asked, histories)]
        said = await self.student([(releases[place] or "", question) for place, question in zip(asked, questions)])
        for place, row in zip(asked, said):
            if row is not None:
                bodies[place] = row.body(releases[place] or "", features[place], self.clock())
        return bodies

    def close(self) -> None:
        """Stop the threads of all batchers."""
        readers = (self.rows, self.batches, self.bodies, self.histories, self.states, self.past, self.student)
        for batcher in (*readers, self.intake, self.ranks, self.lists):
            batcher.close()


def build_app(store: Store, scorers: Scorers, settings: ServingSettings, keys: Keyring, clock: SteadyClock) -> Gate:
    """Return the ASGI application of one process."""
    metrics = Metrics(store, clock, settings.recommend)
    service = Service(store, scorers, settings, clock, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        scorers.start()
        scrubbing = asyncio.create_task(service.scrubbing.run())
        yield
        scrubbing.cancel()
        with suppress(asyncio.CancelledError):
            await scrubbing
        await service.scrubbing.end()
        scorers.stop()
        service.close()

    silent: Any = {
        "tracing": False,
        "metrics": False,
        "logs": False,
    }  # FastAPI's own telemetry would contain paths, which contain user ids
    app = FastAPI(
        title="taiji",
        version=__version__,
        summary="Near-online features from an LLM, and recommendations",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=silent,
    )
    gate = Gate(app, keys, settings.limits, metrics, service.admissions)
    gate.readiness = service.readiness
    _routes(app, service)
    _admin_routes(app, service)
    app.add_exception_handler(StoreUnavailable, _unavailable)
    app.add_exception_handler(Overloaded, partial(_overloaded, gate))
    app.add_exception_handler(Rejected, gate.reject)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _broken)
    describe(app, secured=bool(len(keys)))
    page = cache(lambda: documentation(app.openapi()))  # created once, because it can be requested without a key

    async def documented(request: Request) -> Response:
        text, policy = page()
        return Response(text, headers={"content-security-policy": policy}, media_type="text/html; charset=utf-8")

    app.add_route("/docs", documented, methods=["GET", "HEAD"], include_in_schema=False)
    return gate


def _unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreUnavailable)
    log("request rejected", error=why(error))
    unusable = f"The service cannot read or store data: {error}."
    passing = "The store is unavailable; repeat the request with the same idempotency key."
    body = {"code": "unavailable", "message": unusable if isinstance(error, StoreUnusable) else passing}
    return Response(json.dumps(body), 503, {"retry-after": "1"}, "application/json")


async def _overloaded(gate: Gate, request: Request, error: Exception) -> Response:
    assert isinstance(error, Overloaded)
    return await gate.reject(request, await overloaded(error))


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "no_method" if error.status_code == 405 else "no_route"
    return Response(
        json.dumps({"code": code, "message": f"{error.detail}."}), error.status_code, error.headers, "application/json"
    )


def _broken(request: Request, error: Exception) -> Response:
    return Response(
        b'{"code":"internal","message":"Internal error; details are in the log."}', 500, media_type="application/json"
    )


def _json(value: BaseModel | bytes, status: int = 200) -> Response:
    return Response(
        value if isinstance(value, bytes) else value.model_dump_json(), status, media_type="application/json"
    )


async def _body(service: Service, request: Request, model: type[M]) -> M:
    return await service.read(await json_body(request), partial(parsed, model))


def at_once(work: Callable[[Sequence[Q]], Sequence[A]], asked: Sequence[Sequence[Q]]) -> list[list[A]]:
    """Call ``work`` once with the elements of several lists, and return one list of results per list."""
    answers = iter(work([question for questions in asked for question in questions]))
    return [[next(answers) for _ in questions] for questions in asked]


def _routes(app: FastAPI, service: Service) -> None:
    metrics, clock = service.metrics, service.clock

    @app.get(
        "/healthz",
        response_model=s.State,
        tags=["operation"],
        summary="Liveness of the process",
        responses=responses(429),
    )
    async def health() -> Response:
        return _json(s.State(status="ok"))

    @app.get(
        "/readyz",
        response_model=s.State,
        tags=["operation"],
        summary="Readiness: the store responds, the models of the active release are loaded, a worker is alive and events are absorbed",
        responses=responses(429, 503),
    )
    async def ready() -> Response:
        if not service.readiness.fresh and (reason := await asyncio.to_thread(service.readiness.reason)):
            raise Rejected(503, "not_ready", reason, retry_s=1)
        state, recommender = service.scorers.state, service.scorers.recommender_state
        return _json(s.State(status="ok", ranker=state, recommender=recommender))

    @app.get(
        "/metrics",
        tags=["operation"],
        summary="Prometheus metrics",
        response_class=Response,
        responses=responses(401, 403, 429, text=True),
    )
    async def prometheus() -> Response:
        return Response(await asyncio.to_thread(metrics.render), media_type="text/plain; version=0.0.4")

    @app.post("/v1/events", status_code=202, response_model=s.EventsOut, tags=["events"], summary="Record user events",
              responses=responses(400, 401, 403, 408, 409, 413, 415, 422, 429, 503), openapi_extra=takes(s.EventsIn, idempotent=True))  # fmt: skip
    async def events(request: Request) -> Response:
        body, sent = await json_body(request), idempotency_key(request)
        now = clock()
        latest = now + int(service.settings.limits.future_s * 1e6)
        batch = await service.read(
            body, partial(event_batch, service.store.keyed, sent, request.scope[KEY], now, latest)
        )
        outcome = await service.intake(batch)
        if outcome == "conflict":
            raise Rejected(409, "conflict", "This Idempotency-Key was used before with a different body.")
        if outcome == "full":
            raise Rejected(503, "backlog", "The workers are behind; try again later.", retry_s=5)
        accepted = len(batch.events) if outcome == "accepted" else 0
        metrics.events.inc(accepted)
        return _json(s.EventsOut(accepted=accepted, duplicate=outcome == "duplicate"), 202)

    @app.get("/v1/features/{user:path}", response_model=s.Features, tags=["features"], summary="The newest features of a user",
             responses=responses(401, 403, 404, 422, 429, 503))  # fmt: skip
    async def features(user: str) -> Response:
        row = await service.rows(user_id(user))
        (body,) = await service.answers((user,), (row,))
        if body is None:
            known = service.scorers.knows(service.scorers.active, await service.histories(user))
            raise Rejected(404, "no_features", UNKNOWN if known is False else "This user has no features yet.")
        service.note_ages((row,))
        return _json(body)

    @app.post("/v1/features:batch", response_model=s.FeaturesOut, tags=["features"], summary="The newest features of many users",
              responses=responses(400, 401, 403, 408, 413, 415, 422, 429, 503), openapi_extra=takes(s.UsersIn))  # fmt: skip
    async def features_batch(request: Request) -> Response:
        users = (await _body(service, request, s.UsersIn)).users
        rows, answer = await service.batches(users)
        if answer is None:
            answer = joined(await service.answers(users, rows))
        return _json(answer)

    @app.post("/v1/rank", response_model=s.RankOut, tags=["ranking"], summary="Score candidates for a user, with and without features",
              responses=responses(400, 401, 403, 408, 413, 415, 422, 429, 503), openapi_extra=takes(s.RankIn))  # fmt: skip
    async def rank(request: Request) -> Response:
        asked = await _body(service, request, s.RankIn)
        row, history = await service.states(asked.user)  # one call for both: a thread switch costs as much as a read
        release = row.release if row else service.scorers.active
        if release is None or not service.scorers.ready(release):
            raise Rejected(503, "not_ready", "The ranker is not loaded yet, or could not be loaded.", retry_s=2)
        features = json.loads(row.body()) if row else None
        result = await service.ranks((release, RankRequest(history, tuple(asked.items), features, asked.context)))
        if result.wrong_context:
            raise wrong_context(result.wrong_context)
        better: list[float | None] = (
            [None] * len(asked.items) if result.with_features is None else [*result.with_features]
        )
        pairs = zip(asked.items, result.without_features, better, strict=True)
        scores = [{"item": item, "without_features": plain, "with_features": other} for item, plain, other in pairs]
        found = {
            "release": release,
            "known_user": service.scorers.knows(release, history),
            "feature_version": row.version if row else None,
            "scores": scores,
        }
        # For 1,000 candidates, this takes a third of the time that RankOut would take.
        return _json(to_json(found, inf_nan_mode="null"))

    @app.post("/v1/recommend", response_model=s.RecommendOut, tags=["ranking"], summary="Recommend a list of items to a user",
              responses=responses(400, 401, 403, 408, 409, 413, 415, 422, 429, 503), openapi_extra=takes(s.RecommendIn))  # fmt: skip
    async def recommend(request: Request) -> Response:
        answer = await service.lists.answer(await _body(service, request, s.RecommendIn), request.scope.get(BUSY))
        response = _json(answer)
        if answer.cached:
            response.headers["age"] = str(int(answer.age_s))
            response.headers["cache-status"] = f"taiji; hit; detail={'kept' if answer.kept else 'same'}"
        return response

    @app.delete(
        "/v1/users/{user:path}",
        response_model=s.Erased,
        tags=["users"],
        summary="Erase a user everywhere",
        responses=responses(401, 403, 422, 429, 503),
    )
    async def erase(user: str) -> Response:
        known, neighbours = await asyncio.to_thread(service.erase, user_id(user))
        service.lists.forget(user)
        service.scrubbing.soon()
        log("user erased", neighbours=neighbours)
        return _json(s.Erased(known_user=known, neighbours_rewritten=neighbours))


def _admin_routes(app: FastAPI, service: Service) -> None:
    store, clock = service.store, service.clock

    async def switched(
        action: Callable[..., Any],
        *arguments: Any,
        missing: str = "There is no such live release, or it is the active one.",
    ) -> Response:
        try:
            await asyncio.to_thread(action, *arguments)
        except KeyError:
            raise Rejected(409, "no_release", missing) from None
        return listed(await asyncio.to_thread(service.scorers.look))

    def listed(found: Releases) -> Response:
        live = [
            s.ReleaseOut(name=r.name, model_version=r.model_version, quantizer_version=r.quantizer_version)
            for _, r in sorted(found.live.items())
        ]
        return _json(s.ReleasesOut(active=found.active, previous=found.previous, live=live))

    @app.get(
        "/v1/admin/releases",
        response_model=s.ReleasesOut,
        tags=["admin"],
        summary="Live releases",
        responses=responses(401, 403, 429, 503),
    )
    async def releases() -> Response:
        return listed(await asyncio.to_thread(store.releases))

    @app.post("/v1/admin/releases:activate", response_model=s.ReleasesOut, tags=["admin"], summary="Switch to another live release, once it is ready",
              operation_id="activate", responses=responses(400, 401, 403, 408, 409, 413, 415, 422, 429, 503), openapi_extra=takes(s.ActivateIn))  # fmt: skip
    async def activate(request: Request) -> Response:
        asked = await _body(service, request, s.ActivateIn)
        deadline = time.monotonic() + min(ACTIVATE_WAIT_S, service.settings.limits.request_s / 2)
        while not asked.force and asked.release in (await asyncio.to_thread(store.releases)).live:
            reason = await asyncio.to_thread(unprepared, store, asked.release, service.settings, clock())
            if not reason:
                break
            if time.monotonic() > deadline:
                raise Rejected(409, "not_prepared", f"The release is not ready: {reason}", retry_s=1)
            await asyncio.sleep(0.1)
        log("release activate", release=asked.release, force=asked.force)
        return await switched(store.activate, asked.release)

    @app.post("/v1/admin/releases:retire", response_model=s.ReleasesOut, tags=["admin"], summary="Delete a release that is not served",
              operation_id="retire", responses=responses(400, 401, 403, 408, 409, 413, 415, 422, 429, 503), openapi_extra=takes(s.ReleaseIn))  # fmt: skip
    async def retire(request: Request) -> Response:
        name = (await _body(service, request, s.ReleaseIn)).release
        log("release retire", release=name)
        return await switched(store.retire, name)

    @app.post(
        "/v1/admin/releases:rollback",
        response_model=s.ReleasesOut,
        tags=["admin"],
        summary="Serve the previous release again",
        responses=responses(401, 403, 409, 429, 503),
    )
    async def rollback() -> Response:
        log("release rollback")
        return await switched(store.roll_back, missing="There is no previous release to serve again.")

    @app.get(
        "/v1/admin/dead-letters",
        response_model=s.LettersOut,
        tags=["admin"],
        summary="Dead letters: users whose features could not be written, and why",
        responses=responses(401, 403, 429, 503),
    )
    async def letters() -> Response:
        found = await asyncio.to_thread(store.dead_letters)
        return _json(
            s.LettersOut(
                dead_letters=[
                    s.Letter(release=x.release, user=x.user, reason=x.reason, attempts=x.attempts, at=x.at)
                    for x in found[:MAX_LETTERS]
                ]
            )
        )

    @app.post(
        "/v1/admin/dead-letters:retry",
        response_model=s.Retried,
        tags=["admin"],
        summary="Retry all dead letters",
        responses=responses(401, 403, 429, 503),
    )
    async def retry() -> Response:
        return _json(s.Retried(retried=await asyncio.to_thread(store.retry, clock())))
