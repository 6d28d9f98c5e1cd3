"""The HTTP interface in-process: routes, scopes, limits, refusals; on both stores where the store matters."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.serving.doubles import EchoWriter, LengthScorer, ListMaker

from taiji.core.errors import ArtifactError
from taiji.serving import schemas
from taiji.serving.app import build_app
from taiji.serving.batching import Overloaded
from taiji.serving.body_turns import INSIDE
from taiji.serving.clock import SteadyClock, wall_us
from taiji.serving.gate import PAUSE_S, Gate, needed_scope
from taiji.serving.keys import Keyring, load_keys
from taiji.serving.readiness import Readiness
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Releases, Store, StoreUnavailable, StoreUnusable
from taiji.serving.types import (
    Claim,
    Event,
    EventBatch,
    FeatureRow,
    FeaturesOnly,
    RankRequest,
    RankResult,
    Release,
    UserHistory,
)

SECRETS = {scope: scope[0] * 24 for scope in ("read", "write", "admin")}
KEYS = ",".join(f"{scope}er:{scope}:{secret}" for scope, secret in SECRETS.items())
RELEASE, NEXT = Release("r1", "/run/one", "echo-1", "q-echo-1"), Release("r2", "/run/two", "echo-2", "q-echo-2")
EVENT = {"user_id": "u1", "item_id": "i9", "timestamp": "2026-01-31T12:00:00Z"}


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    store = make_store(trigger={"window_s": 0.0})
    store.add_release(RELEASE, 1)
    store.publish(
        "r1",
        [
            FeatureRow("u1", 5, (1, 2), "u2", ("i1", "i2"), "echo-1", "q-echo-1", 5, 0),
            FeatureRow("u2", 5, (3,), None, (), "echo-1", "q-echo-1", 5, 0),
        ],
        10,
    )
    return store


def open_client(
    store: Store, keys: Keyring | None = None, maker: type[ListMaker] = ListMaker, **limits: object
) -> Iterator[TestClient]:
    settings = ServingSettings.model_validate({"limits": limits})
    scorers = Scorers(store, lambda run: maker())
    scorers.refresh()
    app = build_app(store, scorers, settings, keys or Keyring(), SteadyClock())
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    yield from open_client(store)


@pytest.fixture
def locked(store: Store) -> Iterator[TestClient]:
    yield from open_client(store, load_keys(None, {"TAIJI_API_KEYS": KEYS}))


def post_events(client: TestClient, *events: dict[str, Any], key: str = "k1", **headers: str) -> Any:
    return client.post("/v1/events", json={"events": list(events)}, headers={"Idempotency-Key": key, **headers})


def test_reading_features(client: TestClient) -> None:
    answer = client.get("/v1/features/u1")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "release": "r1", "feature_version": 1, "user": "u1", "model_version": "echo-1", "quantizer_version": "q-echo-1",
        "as_of": 5, "generated_at": 5, "events_seen": 0, "ids": [1, 2], "neighbour_items": ["i1", "i2"],
    }  # fmt: skip
    assert client.get("/v1/features/nobody").status_code == 404
    assert client.get("/v1/features/a%2Fb").json()["code"] == "no_features"  # a slash in an id is no path
    assert (
        client.get("/v1/features/a%0Ab").status_code == 422
        and client.delete("/v1/users/%7F").json()["code"] == "invalid"
    )
    assert client.get("/v2").json()["code"] == "no_route"
    assert client.put("/v1/rank").json()["code"] == "no_method" and client.put("/v1/rank").headers["allow"] == "POST"
    rows = client.post("/v1/features:batch", json={"users": ["u2", "nobody", "u1"]}).json()["rows"]
    assert [row and row["user"] for row in rows] == ["u2", None, "u1"]


def test_taking_in_events_once(client: TestClient, store: Store) -> None:
    first = post_events(client, EVENT, {**EVENT, "user_id": "u3", "click": 0.0, "conversion": 1, "price": 2.5})
    assert (first.status_code, first.json()) == (202, {"accepted": 2, "duplicate": False})
    again = post_events(client, EVENT, {**EVENT, "user_id": "u3", "click": 0.0, "conversion": 1, "price": 2.5})
    assert (again.status_code, again.json()) == (202, {"accepted": 0, "duplicate": True})
    assert post_events(client, EVENT).status_code == 409  # the same key, another body
    assert store.absorb("w", 10, 10) == 2
    (event,) = store.histories(["u3"], 10)[0].events
    assert event[1:] == ("u3", "i9", 1_769_860_800_000_000, 0, 1, 2.5)


@pytest.mark.parametrize(
    ("text", "micros"),
    [("2026-01-31T12:00:00.25Z", 1_769_860_800_250_000), ("2026-01-31T14:00:00+02:00", 1_769_860_800_000_000)],
)
def test_times_are_exact(client: TestClient, store: Store, text: str, micros: int) -> None:
    assert post_events(client, {**EVENT, "timestamp": text}).status_code == 202
    store.absorb("w", 10, 10)
    assert store.histories(["u1"], 10)[0].events[0].time == micros


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"user_id": ""}, "/events/0/user_id"),
        ({"user_id": 5}, "/events/0/user_id"),
        ({"user_id": "a\x00b"}, "/events/0/user_id"),
        ({"item_id": "x" * 257}, "/events/0/item_id"),
        ({"timestamp": "yesterday"}, "/events/0/timestamp"),
        ({"timestamp": "2026-02-30T00:00:00Z"}, "/events/0/timestamp"),
        ({"timestamp": 1769860800}, "/events/0/timestamp"),
        ({"timestamp": "1969-01-01T00:00:00Z"}, "/events/0/timestamp"),
        ({"timestamp": "2999-01-01T00:00:00Z"}, "/events/0/timestamp"),
        ({"click": 2}, "/events/0/click"),
        ({"click": True}, "/events/0/click"),
        ({"price": -1}, "/events/0/price"),
        ({"surprise": 1}, "/events/0/surprise"),
    ],
)
def test_a_bad_event_is_refused_with_its_place_and_nothing_is_taken(
    client: TestClient, store: Store, change: dict[str, Any], place: str
) -> None:
    answer = post_events(client, {**EVENT, **change})
    assert answer.status_code == 422 and place in answer.json()["places"]
    assert store.gauges(10).queued == 0


def test_bodies_that_are_no_json(client: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    for body in (
        b"",
        b"{",
        b"\xff\xfe",
        b'{"events": ["\xff"]}',
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        b'"\\ud800"',
        b"NaN",
    ):
        for path in ("/v1/events", "/v1/features:batch", "/v1/rank"):
            answer = client.post(path, content=body, headers=headers)
            assert answer.status_code in (400, 422) and answer.json()["code"] in ("malformed", "invalid"), body[:20]
    assert (
        client.post(
            "/v1/events",
            content=json.dumps({"events": [EVENT]}),
            headers={"Idempotency-Key": "k", "Content-Type": "text/plain"},
        ).status_code
        == 415
    )
    assert client.post("/v1/events", json={"events": [EVENT]}).json()["code"] == "idempotency_key"
    assert (
        client.post("/v1/events", json={"events": [EVENT]}, headers={"Idempotency-Key": "x" * 201}).status_code == 422
    )
    assert client.post("/v1/events", json={"events": []}, headers={"Idempotency-Key": "k"}).status_code == 422
    assert client.post("/v1/features:batch", json={"users": ["u"] * 1001}).status_code == 422


def test_large_bodies_are_refused_whether_announced_or_not(store: Store) -> None:
    for client in open_client(store, body_bytes=1000):
        assert client.post("/v1/rank", content=b"x" * 1001).json()["code"] == "too_large"
        assert client.post("/v1/rank", content=b"", headers={"Content-Length": "nine"}).status_code == 413

        def chunks() -> Iterator[bytes]:
            for _ in range(11):
                yield b"x" * 100

        assert client.post("/v1/rank", content=chunks()).status_code == 413


def test_the_largest_body_is_taken(client: TestClient, store: Store) -> None:
    long = {"user_id": "u" * 256, "item_id": "i" * 256, "timestamp": "2026-01-31T12:00:00Z"}
    assert len(json.dumps({"events": [long] * 1000})) > 500_000
    assert post_events(client, *[long] * 1000).json() == {"accepted": 1000, "duplicate": False}
    assert store.gauges(10).queued == 1000
    assert (
        client.post("/v1/events", json={"events": [long] * 1001}, headers={"Idempotency-Key": "k2"}).status_code == 422
    )


def test_ranking(client: TestClient, store: Store) -> None:
    answer = client.post("/v1/rank", json={"user": "u1", "items": ["abc", "a"]}).json()
    assert answer["release"] == "r1" and answer["feature_version"] == 1
    assert [score["item"] for score in answer["scores"]] == ["abc", "a"]
    assert answer["scores"][1]["without_features"] == 0.5 and answer["scores"][1]["with_features"] == 0.5 + 1e-9
    stranger = client.post("/v1/rank", json={"user": "stranger", "items": ["abc"]}).json()
    assert stranger["feature_version"] is None and stranger["scores"][0]["with_features"] is None
    mixed = client.post("/v1/rank", json={"user": "u1", "items": ["ghost", "a"]})
    assert mixed.status_code == 200
    assert mixed.json()["scores"] == [
        {"item": "ghost", "without_features": None, "with_features": None},
        answer["scores"][1],
    ]
    (nothing,) = client.post("/v1/rank", json={"user": "stranger", "items": ["ghost"]}).json()["scores"]
    assert nothing == {"item": "ghost", "without_features": None, "with_features": None}


def test_the_context_of_a_request_is_passed_on_and_one_that_does_not_fit_is_refused(client: TestClient) -> None:
    asked = {
        "user": "u1",
        "items": ["abc"],
        "context": {"place": "home", "hour": 5, "load": 0.5, "new": True, "none": None},
    }
    assert client.post("/v1/rank", json=asked).status_code == 200
    refused = client.post("/v1/rank", json={**asked, "context": {"place": "home", "ghost": 1}})
    assert (refused.status_code, refused.json()["code"]) == (422, "context")
    assert refused.json()["places"] == ["/context/ghost"] and "no such column" in refused.json()["message"]
    for wrong in ({"": 1}, {"x": [1]}, {"x": {"y": 1}}, {"x": "y" * 257}, [], "home"):
        answer = client.post("/v1/rank", json={**asked, "context": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), wrong


def test_a_service_without_a_ranker_still_serves_features(store: Store) -> None:
    def fail(run: Path) -> LengthScorer:
        raise FileNotFoundError(run)

    scorers = Scorers(store, fail)
    with redirect_stderr(io.StringIO()):
        scorers.refresh()
    app = build_app(store, scorers, ServingSettings(), Keyring(), SteadyClock())
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/v1/features/u1").status_code == 200
        assert client.post("/v1/rank", json={"user": "u1", "items": ["a"]}).json()["code"] == "not_ready"
        assert client.post("/v1/recommend", json={"user": "u1"}).json()["code"] == "not_ready"
        answer = client.get("/readyz")
        assert answer.status_code == 503 and answer.json()["code"] == "not_ready"
        assert answer.json()["message"].startswith(
            "The models of the active release cannot be loaded: FileNotFoundError at"
        )


def test_a_run_without_a_ranker_for_requests_is_ready_for_features(store: Store) -> None:
    def other(run: Path) -> LengthScorer:
        raise FeaturesOnly("The run's ranker is not a neural ranker, so the service cannot score with it.")

    scorers = Scorers(store, other)
    scorers.refresh()
    app = build_app(store, scorers, ServingSettings(), Keyring(), SteadyClock())
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/readyz").json() == {"status": "ok", "ranker": "none", "recommender": "none"}
        refused = client.post("/v1/recommend", json={"user": "u1"})
        assert (refused.status_code, refused.json()["code"]) == (409, "no_recommender")


def test_a_ranker_that_could_not_be_loaded_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception | None] = [ArtifactError("There is no ranker."), None]

    def load(run: Path) -> LengthScorer:
        if (error := answers.pop(0)) is not None:
            raise error
        return LengthScorer()

    scorers = Scorers(store, load)
    scorers.refresh()
    assert (scorers.state, scorers.reason) == ("failed", "There is no ranker.")
    scorers.refresh()
    assert scorers.state == "failed", "not at every poll"
    monkeypatch.setattr("taiji.serving.scorers.time.monotonic", lambda: 1e12)
    scorers.refresh()
    assert (scorers.state, scorers.reason) == ("ready", "")


def test_a_release_retired_while_it_was_asked_is_not_ready_and_no_bug(store: Store) -> None:
    scorers = Scorers(store, lambda run: LengthScorer())
    scorers.refresh()
    with pytest.raises(Overloaded):
        scorers.score([("gone", RankRequest(UserHistory("u1", 5), ("a",), None))])


def test_the_thread_that_follows_releases_outlives_every_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scorers, calls = Scorers(store, lambda run: LengthScorer()), []
    monkeypatch.setattr("taiji.serving.scorers.RELEASE_POLL_S", 0.01)
    real = scorers.refresh

    def refresh() -> None:
        calls.append(scorers.trouble)
        if len(calls) < 3:
            raise TypeError("a field of a newer version")
        real()

    monkeypatch.setattr(scorers, "refresh", refresh)
    scorers.start()
    deadline = time.monotonic() + 10
    while not scorers.ready("r1") and time.monotonic() < deadline:
        time.sleep(0.01)
    scorers.stop()
    assert scorers.ready("r1") and calls[1].startswith("TypeError at test_app.py") and scorers.trouble == ""


def test_a_switch_is_followed_while_another_release_is_being_loaded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, loaded = threading.Event(), threading.Event()

    def load(run: Path) -> LengthScorer:
        if run.name == "slow":
            begun.set()
            loaded.wait(10)
        return LengthScorer()

    scorers = Scorers(store, load)
    monkeypatch.setattr("taiji.serving.scorers.RELEASE_POLL_S", 0.01)
    store.add_release(NEXT, 10)
    scorers.start()
    deadline = time.monotonic() + 10
    while not (scorers.ready("r1") and scorers.ready("r2")) and time.monotonic() < deadline:
        time.sleep(0.01)
    store.add_release(replace(NEXT, name="r3", run="slow"), 10)
    assert begun.wait(10)
    store.activate("r2")
    while scorers.active != "r2" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scorers.active == "r2" and not scorers.ready("r3") and not loaded.is_set()
    store.activate("r3")
    time.sleep(0.1)
    assert scorers.active == "r2", "who asks in the meantime is answered by the release before"
    loaded.set()
    while scorers.active != "r3" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scorers.active == "r3" and scorers.ready("r3")
    scorers.stop()


def test_who_asks_after_a_switch_is_answered_by_the_new_release(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taiji.serving.scorers.RELEASE_POLL_S", 600.0)
    store.add_release(NEXT, 10)
    for client in open_client(store):
        ask = lambda: client.post("/v1/recommend", json={"user": "without-row", "k": 1}).json()["release"]  # noqa: B023, E731
        assert ask() == "r1"
        for path, asked, expected in (
            ("activate", {"release": "r2", "force": True}, "r2"),
            ("rollback", None, "r1"),
        ):
            assert client.post(f"/v1/admin/releases:{path}", json=asked).json()["active"] == expected
            assert ask() == expected


def test_a_switch_before_an_outage_of_the_store_is_followed_as_soon_as_it_is_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("taiji.serving.scorers.RELEASE_POLL_S", 600.0)
    scorers, real, calls = Scorers(store, lambda run: LengthScorer()), store.releases, []

    def releases() -> Releases:
        calls.append(time.monotonic())
        if len(calls) < 4:
            raise StoreUnavailable("no connection")
        return real()

    monkeypatch.setattr(store, "releases", releases)
    with caplog.at_level("WARNING", "taiji.serving"):
        scorers.start()
        deadline = time.monotonic() + 60
        while scorers.active != "r1" and time.monotonic() < deadline:
            time.sleep(0.01)
    scorers.stop()
    assert scorers.active == "r1"
    assert caplog.messages.count("store unavailable") < len(calls)


def test_a_poll_that_fails_is_told_until_one_succeeds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taiji.serving.scorers.RELEASE_POLL_S", 0.01)
    scorers, real, broken = Scorers(store, lambda run: LengthScorer()), store.releases, threading.Event()

    def releases() -> Releases:
        if broken.is_set():
            raise TypeError("a field of a newer version")
        return real()

    monkeypatch.setattr(store, "releases", releases)
    scorers.start()
    deadline = time.monotonic() + 20
    while not scorers.ready("r1") and time.monotonic() < deadline:
        time.sleep(0.01)
    broken.set()
    deadline = time.monotonic() + 20
    while not scorers.trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(20):
        assert scorers.trouble.startswith("TypeError"), "models that are loaded do not hide it"
        time.sleep(0.01)
    broken.clear()
    deadline = time.monotonic() + 20
    while scorers.trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    scorers.stop()
    assert scorers.trouble == ""


def test_releases_that_cannot_be_followed_make_the_service_not_ready(store: Store) -> None:
    scorers = Scorers(store, lambda run: LengthScorer())
    scorers.refresh()
    scorers.trouble, scorers.start = "TypeError at types.py:1", lambda: None  # type: ignore[method-assign]
    app = build_app(store, scorers, ServingSettings(), Keyring(), SteadyClock())
    with TestClient(app, base_url="http://localhost") as client:
        assert "cannot be refreshed: TypeError at types.py:1" in client.get("/readyz").json()["message"]


def test_events_that_nobody_takes_in_make_the_service_not_ready(store: Store) -> None:
    for client in open_client(store, stall_s=0.05):
        assert client.get("/readyz").status_code == 200
        post_events(client, EVENT)
        time.sleep(0.1)
        answer = client.get("/readyz")
        assert answer.status_code == 503 and "No worker is absorbing events" in answer.json()["message"]
        store.absorb("w", 10, 10)
        assert client.get("/readyz").status_code == 200


def test_models_that_are_being_loaded_make_the_service_not_ready(store: Store) -> None:
    app = build_app(store, Scorers(store, lambda run: LengthScorer()), ServingSettings(), Keyring(), SteadyClock())
    assert app.readiness is not None
    assert app.readiness.reason() == "No release is active yet."
    loading = Scorers(store, lambda run: LengthScorer())
    loading.active = "r1"
    assert "being loaded" in Readiness(store, loading, ServingSettings(), SteadyClock()).reason()


def test_a_worker_that_is_gone_for_long_makes_the_service_not_ready(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taiji.serving.readiness.KEEP_S", 0.0)
    monkeypatch.setattr("taiji.serving.readiness.GONE_S", 0.2)
    for client in open_client(store):
        time.sleep(0.25)
        assert "No worker of the active release" in client.get("/readyz").json()["message"]
        store.beat("w", {"kind": "worker", "release": "r2"}, wall_us())
        assert client.get("/readyz").status_code == 503
        store.beat("w", {"kind": "worker", "release": "r1"}, wall_us())
        assert client.get("/readyz").status_code == 200


def test_a_process_that_is_to_end_answers_and_is_not_ready(client: TestClient) -> None:
    assert client.get("/readyz").status_code == 200
    client.app.drain()  # type: ignore[attr-defined]
    assert client.get("/readyz").status_code == 503 and client.get("/v1/features/u1").status_code == 200


def test_probes_have_no_rate_and_administration_leaves_a_trace(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for client in open_client(store, load_keys(None, {"TAIJI_API_KEYS": KEYS}), rate=0.001, burst=3):
        assert [client.get("/docs").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert {client.get(path).status_code for path in ("/healthz", "/readyz") * 5} == {200}
        capsys.readouterr()
        reader = {"Authorization": f"Bearer {SECRETS['read']}"}
        admin = {"Authorization": f"Bearer {SECRETS['admin']}"}
        answers = [client.delete("/v1/users/u1", headers=admin), client.delete("/v1/users/u2", headers=reader)]
        assert [answer.status_code for answer in answers] == [200, 403]
        client.delete("/v1/users/u3")  # anybody can do that as often as they like
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        audit = [line for line in lines if line["event"] == "audit"]
        assert [(line["key"], line["status"], line["method"]) for line in audit] == [
            ("adminer", 200, "DELETE"),
            ("reader", 403, "DELETE"),
        ]
        assert [line["request"] for line in audit] == [answer.headers["x-request-id"] for answer in answers]
        assert not any("u1" in str(line) for line in audit)


def test_a_key_of_any_name_leaves_a_trace(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for client in open_client(store, load_keys(None, {"TAIJI_API_KEYS": f"anonymous:admin:{'a' * 24}"})):
        assert client.delete("/v1/users/u1", headers={"Authorization": f"Bearer {'a' * 24}"}).status_code == 200
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["key"] for line in lines if line["event"] == "audit"] == ["anonymous"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (StoreUnusable("it was emptied"), "The store cannot be used: it was emptied."),
        (StoreUnavailable("secret address"), "The store does not respond."),
    ],
    ids=["unusable", "away"],
)
def test_a_probe_says_what_is_wrong_with_the_store(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, says: str
) -> None:
    def fail(*_: object) -> Any:
        raise error

    for method in ("check", "erase"):
        monkeypatch.setattr(type(store), method, fail)
    log = io.StringIO()
    with redirect_stderr(log):
        answers = [client.get("/readyz"), client.delete("/v1/users/u1")]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (503, "not_ready"),
        (503, "unavailable"),
    ]
    assert answers[0].json()["message"] == says
    fixed = isinstance(error, StoreUnusable)
    assert ("it was emptied" in answers[1].json()["message"]) == ("it was emptied" in log.getvalue()) == fixed
    assert "secret" not in log.getvalue() + answers[1].text


class Townsfolk(ListMaker):
    """Recommender of a run that contains the user ``u2`` alone."""

    def has_user(self, history: UserHistory) -> bool:
        return history.user == "u2" and not history.forgotten


def test_answers_tell_whether_the_user_is_known(store: Store) -> None:
    for client in open_client(store, maker=Townsfolk):

        def known(user: str, client: TestClient = client) -> list[Any]:
            asked = {"rank": {"user": user, "items": ["a"]}, "recommend": {"user": user}}
            return [client.post(f"/v1/{route}", json=body).json()["known_user"] for route, body in asked.items()]

        assert known("u2") == [True, True], "in the run's data"
        assert known("stranger") == [False, False] == known("stranger"), "made anew, and from the cache"
        post_events(client, {**EVENT, "user_id": "stranger"})
        store.absorb("w", 10, SteadyClock()())
        assert known("stranger") == [True, True], "known by an event since"
        unknown = client.get("/v1/features/typo").json()
        assert unknown["code"] == "no_features" and "unknown" in unknown["message"]
        assert "yet" in client.get("/v1/features/stranger").json()["message"]
        for user in ("stranger", "u2"):
            assert [client.delete(f"/v1/users/{user}").json()["known_user"] for _ in range(2)] == [True, False]
            assert known(user) == [False, False], "erased"
        post_events(client, {**EVENT, "user_id": "u2"}, key="k2")
        store.absorb("w", 10, SteadyClock()())
        assert known("u2") == [True, True], "erased, and back"


def test_a_backend_without_a_directory_of_users_says_only_what_events_show(client: TestClient, store: Store) -> None:
    def known() -> bool | None:
        answer = schemas.RankOut.model_validate(client.post("/v1/rank", json={"user": "u9", "items": ["a"]}).json())
        return answer.known_user

    assert known() is None
    post_events(client, {**EVENT, "user_id": "u9"})
    store.absorb("w", 10, SteadyClock()())
    assert known() is True


def test_erasing_a_user(client: TestClient, store: Store) -> None:
    post_events(client, EVENT)
    assert client.delete("/v1/users/u2").json() == {"known_user": None, "neighbours_rewritten": 1}
    assert client.get("/v1/features/u2").status_code == 404
    assert client.get("/v1/features/u1").json()["neighbour_items"] == []


def test_releases(client: TestClient, store: Store) -> None:
    store.add_release(NEXT, 10)
    found = client.get("/v1/admin/releases").json()
    assert (found["active"], found["previous"], [r["name"] for r in found["live"]]) == ("r1", None, ["r1", "r2"])
    none = client.post("/v1/admin/releases:rollback")
    assert (none.status_code, none.json()["message"]) == (409, "There is no previous release to serve again.")
    assert client.post("/v1/admin/releases:activate", json={"release": "r9"}).status_code == 409
    assert client.post("/v1/admin/releases:activate", json={"release": "r2"}).json()["active"] == "r2"
    assert client.get("/v1/features/u1").status_code == 404  # r2 has no rows, and r1's are not shown
    assert client.post("/v1/admin/releases:rollback").json()["active"] == "r1"
    assert client.get("/v1/features/u1").json()["model_version"] == "echo-1"
    assert client.post("/v1/admin/releases:retire", json={"release": "r1"}).status_code == 409
    assert [r["name"] for r in client.post("/v1/admin/releases:retire", json={"release": "r2"}).json()["live"]] == [
        "r1"
    ]


def test_a_release_is_activated_when_every_process_has_its_models(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taiji.serving.app.ACTIVATE_WAIT_S", 0.05)
    store.add_release(NEXT, 10)
    for client in open_client(store):
        path = "/v1/admin/releases:activate"
        store.beat("other", {"kind": "api", "loaded": ["r1"], "failed": {}}, wall_us())
        answer = client.post(path, json={"release": "r2"})
        assert (answer.status_code, answer.json()["code"]) == (409, "not_prepared") and "loaded" in answer.json()[
            "message"
        ]
        assert client.post(path, json={"release": "r2", "force": True}).json()["active"] == "r2"
        store.beat("other", {"kind": "api", "loaded": ["r1", "r2"], "failed": {}}, wall_us())
        assert client.post(path, json={"release": "r1"}).json()["active"] == "r1"


def test_dead_letters(client: TestClient, store: Store) -> None:
    store.append([EventBatch("x", "d", (Event("e", "u7", "i", 5),))], 10)
    store.absorb("w", 10, 10)
    now = 10
    for _ in range(5):
        now += 10**9
        store.fail("r1", store.claim("r1", "w", 1, now, 10), "RuntimeError at x.py:1", now)
    (letter,) = client.get("/v1/admin/dead-letters").json()["dead_letters"]
    assert (letter["user"], letter["attempts"], letter["reason"]) == ("u7", 5, "RuntimeError at x.py:1")
    assert client.post("/v1/admin/dead-letters:retry").json() == {"retried": 1}
    assert client.get("/v1/admin/dead-letters").json()["dead_letters"] == []


def test_metrics_count_and_health_answers(client: TestClient, store: Store) -> None:
    client.get("/v1/features/u1")
    post_events(client, EVENT)
    client.get("/v1/features/nobody")
    store.count(prompt_tokens=7)
    text = client.get("/metrics").text
    for line in (
        'taiji_requests_total{route="/v1/features/{user:path}",status="200"} 1.0',
        'taiji_rejected_total{reason="no_features"} 1.0',
        "taiji_events_total 1.0",
        "taiji_queue_events 1.0",
        "taiji_prompt_tokens_total 7.0",
        "taiji_store_up 1.0",
        "taiji_feature_age_seconds_count 1.0",
        'taiji_request_seconds_count{route="/v1/events"} 1.0',
    ):
        assert line in text, line
    assert client.get("/healthz").json()["status"] == "ok" and client.get("/readyz").json() == {
        "status": "ok",
        "ranker": "ready",
        "recommender": "ready",
    }
    assert "u1" not in text and "nobody" not in text


def test_a_store_that_is_away_is_a_503_and_a_bug_a_500_without_details(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Any:
        raise StoreUnavailable("secret address")

    for method in ("read", "append", "check", "erase", "releases"):
        monkeypatch.setattr(type(store), method, away)
    with redirect_stderr(io.StringIO()):
        answers = [client.get("/readyz"), client.delete("/v1/users/u1"), client.get("/v1/admin/releases")]
        app_answers = [post_events(client, EVENT), client.get("/v1/features/u1")]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert all("secret" not in answer.text for answer in answers + app_answers)

    def bug(*_: object) -> Any:
        raise RuntimeError("user u1 is a secret")

    monkeypatch.setattr(type(store), "erase", bug)
    log = io.StringIO()
    with redirect_stderr(log):
        answer = client.delete("/v1/users/u1")
    assert answer.status_code == 500 and answer.json()["code"] == "internal"
    assert "secret" not in log.getvalue() and "RuntimeError at" in log.getvalue()


# Scopes

REQUESTS = [
    ("GET", "/v1/features/u1", None, "read"),
    ("POST", "/v1/features:batch", {"users": ["u1"]}, "read"),
    ("POST", "/v1/rank", {"user": "u1", "items": ["a"]}, "read"),
    ("POST", "/v1/recommend", {"user": "u1"}, "read"),
    ("GET", "/metrics", None, "read"),
    ("POST", "/v1/events", {"events": [EVENT]}, "write"),
    ("DELETE", "/v1/users/u1", None, "admin"),
    ("GET", "/v1/admin/releases", None, "admin"),
    ("POST", "/v1/admin/releases:activate", {"release": "r2"}, "admin"),
    ("POST", "/v1/admin/releases:retire", {"release": "r2"}, "admin"),
    ("POST", "/v1/admin/releases:rollback", None, "admin"),
    ("GET", "/v1/admin/dead-letters", None, "admin"),
    ("POST", "/v1/admin/dead-letters:retry", None, "admin"),
]


class Untouched:
    """A store that notes whatever is asked of it, and breaks."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def counters(self) -> dict[str, int]:
        return {}  # read by the process itself, at its start and its end

    def __getattr__(self, name: str) -> Any:
        def ask(*_: object) -> None:
            self.asked.append(name)
            raise AssertionError(f"{name} was called without the right scope")

        return ask


def test_every_route_is_in_the_table_of_scopes(locked: TestClient) -> None:
    page = locked.get("/openapi.json").json()
    listed = {
        (method.upper(), path.replace("{user}", "u1")) for path, methods in page["paths"].items() for method in methods
    }
    assert listed - {("GET", "/healthz"), ("GET", "/readyz")} == {(method, path) for method, path, _, _ in REQUESTS}
    assert (
        needed_scope("POST", "/anything/new") == "admin"
        and needed_scope("PUT", "/v1/features/u1") == "admin"
        and needed_scope("POST", "/healthz") == "admin"
    )


@pytest.mark.parametrize(("method", "path", "body", "scope"), REQUESTS, ids=[f"{r[0]} {r[1]}" for r in REQUESTS])
def test_without_the_right_scope_nothing_is_read_or_written(method: str, path: str, body: Any, scope: str) -> None:
    class Idle(Scorers):
        def start(self) -> None:
            pass

    untouched: Any = Untouched()
    app = build_app(
        untouched,
        Idle(untouched, lambda run: LengthScorer()),
        ServingSettings(),
        load_keys(None, {"TAIJI_API_KEYS": KEYS}),
        SteadyClock(),
    )
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=True) as client:
        headers = {"Idempotency-Key": "k"}
        for secret in (None, "", "wrong" * 5, KEYS, SECRETS["admin"] + "x"):
            given = headers if secret is None else {**headers, "Authorization": f"Bearer {secret}"}
            answer = client.request(method, path, json=body, headers=given)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert (
            client.request(
                method, path, json=body, headers={**headers, "Authorization": f"Basic {SECRETS['admin']}"}
            ).status_code
            == 401
        )
        for other, secret in SECRETS.items():
            if other not in (scope, "admin"):
                answer = client.request(
                    method, path, json=body, headers={**headers, "Authorization": f"Bearer {secret}"}
                )
                assert answer.status_code == 403 and scope in answer.json()["message"]
    assert untouched.asked == []


@pytest.mark.parametrize(("method", "path", "body", "scope"), REQUESTS, ids=[f"{r[0]} {r[1]}" for r in REQUESTS])
def test_with_the_right_scope_it_is_let_in(locked: TestClient, method: str, path: str, body: Any, scope: str) -> None:
    for secret in (SECRETS[scope], SECRETS["admin"]):
        answer = locked.request(
            method, path, json=body, headers={"Idempotency-Key": "k", "Authorization": f"bearer {secret}"}
        )
        assert answer.status_code in (200, 202, 404, 409), answer.text


def test_without_keys_only_this_machine_is_answered(store: Store, client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8080", ""):
        answer = client.get("/v1/features/u1", headers={"Host": host})  # a page that rebound its name to loopback
        assert answer.status_code == 401 and "must name this machine" in answer.text
    for host in ("127.0.0.1:8080", "localhost", "localhost:1", "[::1]:8080", "[::1]"):
        assert client.get("/v1/features/u1", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via", "CF-Connecting-IP"]
)
def test_without_keys_nothing_that_a_proxy_forwards_is_answered(client: TestClient, name: str) -> None:
    answer = client.get("/v1/features/u1", headers={name: "203.0.113.9"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forwarded")
    assert client.get("/healthz", headers={name: "203.0.113.9"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:3000"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({}, True),
    ],
    ids=["origin", "another port", "null", "cross-site", "same-site", "own page", "typed", "a program"],
)
def test_without_keys_a_page_of_another_site_changes_nothing(
    client: TestClient, headers: dict[str, str], allowed: bool
) -> None:
    answers = [
        client.post("/v1/admin/releases:rollback", headers=headers),
        client.delete("/v1/users/u1", headers=headers),
        client.post("/v1/events", json={"events": [EVENT]}, headers={"Idempotency-Key": "k", **headers}),
    ]
    assert all((answer.status_code != 403) == allowed for answer in answers), [a.text for a in answers]


@pytest.mark.parametrize("name", ["Authorization", "Host", "Content-Type", "Idempotency-Key"])
def test_a_header_that_decides_something_comes_once(locked: TestClient, name: str) -> None:
    headers = [("Authorization", f"Bearer {SECRETS['admin']}"), ("Idempotency-Key", "k"), (name, "x"), (name, "y")]
    answer = locked.post("/v1/events", json={"events": [EVENT]}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "doubled")


def test_the_limits_of_a_head_are_exact(store: Store) -> None:
    for client in open_client(store, headers=20, head_bytes=2000):
        many = {f"x-{number}": "a" for number in range(20)}
        assert client.get("/healthz", headers=many).json()["code"] == "large_head"
        assert client.get("/healthz", headers={"x": "a" * 2000}).status_code == 431
        assert client.get("/healthz?" + "a" * 2000).status_code == 431
        assert client.get("/healthz", headers={"x": "a" * 1500}).status_code == 200


def test_a_length_of_thousands_of_digits_is_too_large(client: TestClient) -> None:
    answer = client.post("/v1/rank", content=b"{}", headers={"Content-Length": "9" * 5000})
    assert answer.status_code == 413


def test_every_answer_forbids_a_browser_to_load_anything(client: TestClient) -> None:
    for path in ("/healthz", "/v1/features/u1", "/nothing", "/openapi.json", "/docs"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_documentation_is_one_page_that_loads_nothing(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text and "http://" not in page.text and "https://" not in page.text
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        assert all(f"{method.upper()} {path}" in page.text for method in methods)


def test_an_idempotency_key_is_of_its_client(locked: TestClient, store: Store) -> None:
    def post(scope: str, item: str) -> int:
        return post_events(locked, {**EVENT, "item_id": item}, Authorization=f"Bearer {SECRETS[scope]}").status_code

    assert [post("write", "a"), post("admin", "b"), post("write", "a"), post("write", "b")] == [202, 202, 202, 409]
    assert store.absorb("w", 10, 10) == 2
    assert len({event.id for event in store.histories(["u1"], 10)[0].events}) == 2


def test_events_of_the_same_time_stay_in_the_order_of_their_arrival(client: TestClient, store: Store) -> None:
    """As ids of batches are hashes, the order by id alone would be a lottery."""
    items = [f"i{number}" for number in range(36)]
    for start in range(0, 24, 2):
        batch = [{**EVENT, "item_id": item} for item in items[start : start + 2]]
        assert post_events(client, *batch, key=f"batch {start}".replace(" ", "-")).status_code == 202
    assert post_events(client, *({**EVENT, "item_id": item} for item in items[24:]), key="last").status_code == 202
    assert store.absorb("w", 100, 10) == len(items)
    assert [event.item for event in store.histories(["u1"], 10)[0].events] == items


def test_rates_are_per_key(store: Store) -> None:
    for client in open_client(store, load_keys(None, {"TAIJI_API_KEYS": KEYS}), rate=0.001, burst=2):
        read, admin = ({"Authorization": f"Bearer {SECRETS[scope]}"} for scope in ("read", "admin"))
        assert [client.get("/v1/features/u1", headers=read).status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/v1/features/u1", headers=admin).status_code == 200
        limited = client.get("/v1/features/u1", headers=read)
        assert limited.json()["code"] == "rate" and int(limited.headers["retry-after"]) > 1


@pytest.mark.parametrize("sound", [True, False], ids=["sound", "unsound"])
def test_while_large_bodies_are_read_others_are_answered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    """A thousand events take milliseconds to read, a thousand unsound ones more; of hundreds at once, nobody may wait
    for all."""
    reading, go_on, model = threading.Event(), threading.Event(), schemas.EventsIn.model_validate_json

    def slow(body: bytes) -> object:
        reading.set()
        assert go_on.wait(20)
        return model(body)

    monkeypatch.setattr(schemas.EventsIn, "model_validate_json", slow)
    event = EVENT if sound else {**EVENT, "click": "no"}
    with ThreadPoolExecutor(1) as pool:
        try:
            asked = pool.submit(post_events, client, *[event] * 200)
            assert reading.wait(20) and client.get("/healthz").status_code == 200 and not asked.done()
        finally:
            go_on.set()
        assert asked.result(20).status_code == (202 if sound else 422)


def test_of_large_bodies_that_come_together_those_are_refused_that_would_wait_too_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = schemas.EventsIn.model_validate_json

    def slow(body: bytes) -> object:
        time.sleep(0.3)
        return model(body)

    monkeypatch.setattr(schemas.EventsIn, "model_validate_json", slow)
    for client in open_client(store, wait_s=0.2):
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(post_events, client, *[EVENT] * 200, key=f"k{number}") for number in range(6)]
        statuses = sorted(answer.result().status_code for answer in asked)
        assert set(statuses) == {202, 503}


def test_a_probe_waits_for_few_of_the_large_bodies_that_came_before_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: of 400 batches that have arrived, the application works on as many as may be inside."""
    gate = client.app
    assert isinstance(gate, Gate)
    inside, most, application = 0, 0, gate._app

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            await application(scope, receive, send)
        finally:
            inside -= 1

    monkeypatch.setattr(gate, "_app", counted)
    body = json.dumps({"events": [EVENT] * 200}).encode()

    async def flood() -> None:
        many = [asyncio.ensure_future(asked(gate, "POST", "/v1/events", body, f"k{number}")) for number in range(400)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert await asked(gate, "GET", "/healthz") == 200
        assert set(await asyncio.gather(*many)) <= {202, 503}

    assert client.portal is not None
    client.portal.call(flood)
    assert 0 < most <= INSIDE + 1 < 400


def test_what_is_done_with_all_bytes_of_a_large_body_is_done_beside_the_loop(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing lets other threads take the interpreter's lock, for which the loop would then wait."""
    places, keyed = set[str](), store.keyed
    monkeypatch.setattr(store, "keyed", lambda data: (places.add(threading.current_thread().name), keyed(data))[1])
    loops = set[str]()

    async def here() -> None:
        loops.add(threading.current_thread().name)

    assert client.portal is not None
    client.portal.call(here)
    assert post_events(client, *[EVENT] * 200).status_code == 202
    assert places and not places & loops


async def asked(app: Gate, method: str, path: str, body: bytes = b"", key: str = "k") -> int:
    """The status of a request that is put to the gate directly."""
    sent, messages = list[dict[str, Any]](), iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages, None) or await asyncio.sleep(60, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"idempotency-key", key.encode())]
    headers += [(b"content-length", b"%d" % len(body))] if body else []
    await app({"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}, receive, send)
    return int(sent[0]["status"])


def test_batch_reads_are_let_in_by_what_they_cost(store: Store) -> None:
    for client in open_client(store):
        gate = client.app
        assert isinstance(gate, Gate)
        admission = gate._admissions["/v1/features:batch"]
        admission.note(1, 10.0)
        with ExitStack() as stack:
            for _ in range(admission.room):
                stack.enter_context(admission.turn("local"))
            assert client.post("/v1/features:batch", json={"users": ["u1"]}).status_code == 503
        assert client.post("/v1/features:batch", json={"users": ["u1"]}).status_code == 200


def test_the_documentation_is_made_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = client.get("/docs").text
    monkeypatch.setattr("taiji.serving.app.documentation", lambda description: pytest.fail("it is made again"))
    assert client.get("/docs").text == before


class Slow(LengthScorer):
    """Takes its time, and counts whom it worked for."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.users = seconds, list[str]()

    def score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        self.users += [request.history.user for request in requests]
        time.sleep(self.seconds * len(requests))
        return super().score(requests)


async def rank(app: Gate, user: str, hang_up_s: float = 10.0) -> int:
    """The status of a ranking of a client that hangs up after a while; 0 where it got none."""
    body, sent = json.dumps({"user": user, "items": ["i"]}).encode(), list[dict[str, Any]]()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        if message := next(messages, None):
            return message
        await asyncio.sleep(hang_up_s)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/v1/rank", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return int(sent[0]["status"]) if sent else 0


def slow_app(store: Store, scorer: Slow, **limits: float) -> Gate:
    scorers = Scorers(store, lambda run: scorer)
    scorers.refresh()
    return build_app(store, scorers, ServingSettings.model_validate({"limits": limits}), Keyring(), SteadyClock())


def test_under_overload_as_many_rankings_are_answered_as_ever(make_store: Callable[..., Store]) -> None:
    store, scorer = make_store(), Slow(0.02)
    store.add_release(RELEASE, 1)
    app = slow_app(store, scorer, wait_s=0.2)

    async def flood() -> list[int]:
        await rank(app, "first")  # from here on the cost is known
        return list(await asyncio.gather(*(rank(app, f"u{number}") for number in range(100))))

    statuses = asyncio.run(flood())
    assert set(statuses) == {200, 503} and statuses.count(200) == len(scorer.users) - 1 >= 4


def test_clients_that_ask_again_at_once_do_not_take_the_time_of_answers(make_store: Callable[..., Store]) -> None:
    store, scorer = make_store(), Slow(0.02)
    store.add_release(RELEASE, 1)
    app, clients = slow_app(store, scorer, wait_s=0.05), 16
    found: Counter[int] = Counter()

    async def again() -> None:
        while found[200] < 40:
            found[await rank(app, "u")] += 1

    async def flood() -> float:
        await rank(app, "first")  # from here on the cost is known
        start = time.monotonic()
        await asyncio.gather(*(again() for _ in range(clients)))
        return time.monotonic() - start

    seconds = asyncio.run(flood())
    assert 0 < found[503] <= clients * (seconds / PAUSE_S + 1) and set(found) == {200, 503}


def test_nobody_works_for_a_client_that_has_hung_up(make_store: Callable[..., Store]) -> None:
    store, scorer = make_store(), Slow(0.1)
    store.add_release(RELEASE, 1)
    app = slow_app(store, scorer)

    async def ask() -> list[int]:
        first = asyncio.ensure_future(rank(app, "first"))
        while not scorer.users:
            await asyncio.sleep(0.001)
        return [await rank(app, "gone", 0.0), await rank(app, "there"), await first]

    assert asyncio.run(ask()) == [0, 200, 200] and scorer.users == ["first", "there"]
    assert b'taiji_rejected_total{reason="gone"} 1.0' in app.metrics.render()


def test_slow_bodies_and_slow_answers_are_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import time

    for client in open_client(store, request_s=0.05):
        monkeypatch.setattr(store, "check", lambda: time.sleep(0.3))
        with redirect_stderr(io.StringIO()):
            assert client.get("/readyz").json()["code"] == "timeout"

    async def slow() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.2)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        settings = ServingSettings.model_validate({"limits": {"body_s": 0.05}})
        app: Gate = build_app(store, Scorers(store, lambda run: LengthScorer()), settings, Keyring(), SteadyClock())
        await app(
            {
                "type": "http",
                "method": "POST",
                "path": "/v1/rank",
                "headers": [(b"host", b"localhost"), (b"content-length", b"9")],
            },
            receive,
            send,
        )
        return sent

    assert asyncio.run(slow())[0]["status"] == 408


def test_no_key_user_item_or_text_reaches_the_log_or_the_metrics(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = {"user_id": "canary-user", "item_id": "canary-item", "timestamp": "2026-01-31T12:00:00Z"}
    for client in open_client(store, load_keys(None, {"TAIJI_API_KEYS": KEYS})):
        auth = {"Authorization": f"Bearer {SECRETS['admin']}"}
        post_events(client, canary, key="canary-key", **auth)
        post_events(client, {**canary, "price": "canary-price"}, key="canary-key2", **auth)
        client.get("/v1/features/canary-user", headers=auth)
        client.get("/v1/features/canary-user", headers={"Authorization": "Bearer canary-secret"})
        client.post("/v1/rank", json={"user": "canary-user", "items": ["ghost-canary"]}, headers=auth)
        client.delete("/v1/users/canary-user", headers=auth)
        client.get("/canary-path", headers=auth)
        metrics = client.get("/metrics", headers=auth).text
        store.append([EventBatch("x", "d", (Event("canary-e", "canary-poison", "canary-item", 5),))], 10)
        run_worker(store)
    out, err = capfd.readouterr()
    assert "user erased" in err and "writing failed" in err
    for secret in ("canary", *SECRETS.values()):
        assert secret not in out + err + metrics


def run_worker(store: Store) -> list[Claim]:
    from taiji.serving.worker import Worker

    worker = Worker(store, EchoWriter(), RELEASE, ServingSettings(), "w")
    worker.absorb()
    worker.step()
    return worker._held
