"""``POST /v1/recommend`` in-process: the answer, the cache and what ends an entry, metrics, refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from tests.serving.doubles import ListMaker

from taiji.serving.admission import MOST
from taiji.serving.app import build_app
from taiji.serving.batching import Overloaded
from taiji.serving.clock import SteadyClock
from taiji.serving.gate import Gate
from taiji.serving.keys import LOCAL, Keyring
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.stores import open_store
from taiji.serving.types import FeatureRow, Release

EVENT = {"user_id": "u1", "item_id": "i9", "timestamp": "2026-01-31T12:00:00Z"}


@pytest.fixture
def store(tmp_path: Any) -> Store:
    store = open_store(ServingSettings(store=f"sqlite:{tmp_path / 'store.sqlite3'}"))
    for version in ("one", "two"):
        store.add_release(Release(f"r-{version}", f"/run/{version}", version, ""), 1)
    return store


@pytest.fixture
def makers() -> dict[str, ListMaker]:
    return {version: ListMaker(version) for version in ("one", "two")}


@pytest.fixture
def client(store: Store, makers: dict[str, ListMaker]) -> Iterator[TestClient]:
    yield from opened(store, makers)


def opened(store: Store, makers: dict[str, ListMaker], **recommend: object) -> Iterator[TestClient]:
    scorers = Scorers(store, lambda run: makers[run.name])
    scorers.refresh()
    settings = ServingSettings.model_validate({"recommend": recommend})
    app = build_app(store, scorers, settings, Keyring(), SteadyClock())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def ask(client: TestClient, **body: object) -> dict[str, Any]:
    answer = client.post("/v1/recommend", json={"user": "u1", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def items(answer: dict[str, Any]) -> list[str]:
    return [entry["item"] for entry in answer["items"]]


def test_a_list_with_scores_sources_and_what_was_ignored(client: TestClient) -> None:
    answer = ask(client, k=3, exclude=["item-0", "ghost-1"])
    assert answer["release"] == "r-one" and items(answer) == ["one", "item-1", "item-2"]
    assert answer["items"][1] == {"item": "item-1", "score": -1.0, "source": "echo"}
    assert answer["unknown_exclusions"] == ["ghost-1"] and answer["trace"] is None
    assert len(ask(client)["items"]) == 10 and ask(client, k=1, trace=True)["trace"] == [{"item": "one", "place": 1}]


@pytest.mark.parametrize(
    "body", [{"k": 0}, {"k": 501}, {"k": 1.5}, {"exclude": [""]}, {"trace": 1}, {"items": ["a"]}], ids=str
)
def test_a_question_that_does_not_fit_is_refused(client: TestClient, body: dict[str, object]) -> None:
    answer = client.post("/v1/recommend", json={"user": "u1", **body})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_context_that_does_not_fit_names_its_columns(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"user": "u1", "context": {"ghost": 1, "hour": 3}})
    assert (answer.status_code, answer.json()["code"], answer.json()["places"]) == (422, "context", ["/context/ghost"])


def test_the_same_question_is_answered_from_the_cache(client: TestClient, makers: dict[str, ListMaker]) -> None:
    first, again = ask(client, k=3), ask(client, k=3)
    assert (first["cached"], again["cached"]) == (False, True) and first["items"] == again["items"]
    assert makers["one"].calls == 1
    for other in ({"k": 4}, {"exclude": ["item-1"]}, {"context": {"hour": 1}}, {"context": {"hour": True}}):
        assert not ask(client, **{"k": 3, **other})["cached"], other
    assert not ask(client, k=3, trace=True)["cached"], "a trace is of a list made now"


def test_an_event_of_the_user_ends_the_entry(client: TestClient, store: Store) -> None:
    assert items(ask(client, k=2)) == ["one", "item-0"]
    client.post("/v1/events", json={"events": [EVENT]}, headers={"Idempotency-Key": "k"})
    store.absorb("w", 10, SteadyClock()())
    after = ask(client, k=2)
    assert items(after) == ["one", "i9"] and not after["cached"]
    client.delete("/v1/users/u1")
    assert items(ask(client, k=2)) == ["one", "item-0"]


def test_a_release_ends_all_entries_and_rolls_back_as_a_whole(client: TestClient) -> None:
    ask(client, k=1)
    for path, body in (("activate", {"release": "r-two"}), ("rollback", None)):
        client.post(f"/v1/admin/releases:{path}", json=body)
        version = "two" if path == "activate" else "one"
        deadline = time.monotonic() + 5
        while (answer := ask(client, k=1))["release"] != f"r-{version}" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert answer["release"] == f"r-{version}" and items(answer) == [version]


def test_without_a_time_to_live_every_list_is_made_anew(store: Store, makers: dict[str, ListMaker]) -> None:
    for client in opened(store, makers, cache_s=0.0):
        assert not ask(client)["cached"] and not ask(client)["cached"]


def test_a_list_made_in_a_hurry_is_told_counted_and_not_kept(client: TestClient) -> None:
    for _ in range(2):
        answer = client.post("/v1/recommend", json={"user": "unlucky"}).json()
        assert answer["late"] == ["slow"] and not answer["cached"]
    text = client.get("/metrics").text
    assert 'taiji_retrievers_left_out_total{retriever="slow",why="late"} 2.0' in text


def test_nobody_answering_is_a_503_for_that_request_alone(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"user": "nobody answers"})
    assert (answer.status_code, answer.json()["code"]) == (503, "no_retriever") and answer.headers["retry-after"]
    assert ask(client)["items"]


def test_times_stand_beside_the_budget_in_the_metrics(store: Store, makers: dict[str, ListMaker]) -> None:
    for client in opened(store, makers, p50_ms=20, p99_ms=0.0001):
        ask(client)
        ask(client)
        text = client.get("/metrics").text
        for line in (
            'taiji_list_budget_seconds{quantile="0.5"} 0.02',
            'taiji_lists_total{from="cascade"} 1.0',
            'taiji_lists_total{from="cache"} 1.0',
            "taiji_lists_over_budget_total 2.0",
            'taiji_list_step_seconds_count{step="retrieve"} 1.0',
        ):
            assert line in text, line
        found = [line for line in text.splitlines() if line.startswith('taiji_list_seconds{quantile="0.99"}')]
        assert 0 < float(found[0].split()[1]) < 5


def test_the_release_that_wrote_the_users_row_answers(store: Store, client: TestClient) -> None:
    store.publish("r-one", [FeatureRow("u1", 5, (1,), None, (), "one", "q", 5, 0)], 10)
    assert ask(client)["release"] == "r-one"


def test_a_new_feature_row_is_another_question_and_is_told_where_it_was_read(store: Store, client: TestClient) -> None:
    assert ask(client, k=2)["feature_version"] is None
    store.publish("r-one", [FeatureRow("u1", 5, (1,), "u2", ("i1",), "one", "q", 5, 0)], 10)
    first, again = ask(client, k=2), ask(client, k=2)
    assert (first["cached"], again["cached"]) == (False, True)
    assert (first["features"], first["feature_version"]) == (again["features"], again["feature_version"]) == ("row", 1)
    store.erase("u2", 20)  # takes the neighbour's items out of the row
    after = ask(client, k=2)
    assert not after["cached"] and after["feature_version"] == 2


def test_a_row_of_another_quantiser_is_told_to_be_unread(store: Store, client: TestClient) -> None:
    store.publish("r-one", [FeatureRow("u1", 5, (1,), None, (), "one", "another", 5, 0)], 10)
    found = ask(client, k=2)
    assert (found["features"], found["feature_version"]) == ("none", None)


@contextmanager
def full(client: TestClient) -> Iterator[None]:
    """No room for a list to be computed."""
    gate = client.app
    assert isinstance(gate, Gate)
    with ExitStack() as stack:
        for _ in range(2 * MOST):
            try:
                stack.enter_context(gate._admissions["/v1/recommend"].turn(LOCAL.name))
            except Overloaded:
                break
        yield


def test_without_room_the_users_own_list_is_shown_again_and_says_so(
    client: TestClient, store: Store, makers: dict[str, ListMaker]
) -> None:
    first = ask(client, k=4)
    assert (first["cached"], first["kept"], first["age_s"]) == (False, False, 0)
    client.post("/v1/events", json={"events": [{**EVENT, "item_id": "item-0"}]}, headers={"Idempotency-Key": "k"})
    store.absorb("w", 10, SteadyClock()())  # another question for the cache, and an item less to show
    with full(client):
        answer = client.post("/v1/recommend", json={"user": "u1", "k": 4, "exclude": ["item-2", "other"]})
        found = answer.json()
    assert answer.status_code == 200 and makers["one"].calls == 1
    assert items(found) == ["one", "item-1", "item-3", "item-4"], "without what was had and excluded, as long as before"
    assert [entry["source"] for entry in found["items"]] == ["echo", "echo", "more", "more"]
    assert (found["cached"], found["kept"], found["release"]) == (True, True, "r-one")
    assert found["made_at"] == first["made_at"] and 0 < found["age_s"] < 60
    assert answer.headers["age"] == str(int(found["age_s"]))
    assert answer.headers["cache-status"] == "taiji; hit; detail=kept"
    text = client.get("/metrics").text
    assert 'taiji_lists_total{from="kept"} 1.0' in text
    assert 'taiji_kept_list_age_seconds_count{release="r-one"} 1.0' in text


def test_the_same_question_without_room_comes_from_the_cache(client: TestClient) -> None:
    first = ask(client, k=3)
    with full(client):
        answer = client.post("/v1/recommend", json={"user": "u1", "k": 3})
    assert answer.json()["items"] == first["items"] and not answer.json()["kept"]
    assert answer.headers["cache-status"] == "taiji; hit; detail=same" and answer.headers["age"] == "0"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"user": "u2"}, id="a user without a list"),
        pytest.param({"user": "u1", "trace": True}, id="a trace"),
        pytest.param({"user": "u1", "context": {"hour": 1}}, id="another context"),
        pytest.param({"user": "u1", "context": {"ghost": 1}}, id="a context that does not fit"),
        pytest.param(
            {"user": "u1", "exclude": ["one", *(f"item-{n}" for n in range(19))]}, id="nothing left of the list"
        ),
    ],
)
def test_who_has_no_list_to_be_shown_again_is_refused_without_room(client: TestClient, body: dict[str, object]) -> None:
    ask(client, k=10)
    with full(client):
        short = client.post("/v1/recommend", json={"user": "u1", "k": 50})
        answer = client.post("/v1/recommend", json=body)
    assert len(short.json()["items"]) == 20, "shorter than asked, and better than none"
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded") and answer.headers["retry-after"]
    assert client.post("/v1/recommend", json={**body, "context": {}}).status_code == 200, "there is room again"


def test_those_for_whom_nothing_is_computed_are_bounded_too(client: TestClient) -> None:
    ask(client)
    gate = client.app
    assert isinstance(gate, Gate)
    spare = gate._admissions["/v1/recommend"].spare
    assert spare is not None
    with full(client), ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(spare.turn(LOCAL.name))
        answer = client.post("/v1/recommend", content=b"not even read", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")


def test_what_waited_in_vain_gets_the_list_of_before(store: Store, makers: dict[str, ListMaker]) -> None:
    scorers = Scorers(store, lambda run: makers[run.name])
    scorers.refresh()
    values = {"limits": {"wait_s": 0.05}, "recommend": {"cache_s": 0.0}}
    app = build_app(store, scorers, ServingSettings.model_validate(values), Keyring(), SteadyClock())

    async def wait() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await client.post("/v1/recommend", json={"user": "u1"})
            makers["one"].seconds = 0.4
            first = asyncio.ensure_future(client.post("/v1/recommend", json={"user": "u2"}))
            while makers["one"].calls < 2:
                await asyncio.sleep(0.005)
            return await client.post("/v1/recommend", json={"user": "u1"}), await first

    waited, computed = asyncio.run(wait())
    assert waited.json()["kept"] and not computed.json()["kept"]


def test_why_there_was_no_list_is_counted(client: TestClient) -> None:
    with full(client):
        client.post("/v1/recommend", json={"user": "u2"})
    assert 'taiji_kept_lists_missing_total{why="none"} 1.0' in client.get("/metrics").text


def test_an_erased_user_is_not_shown_the_list_of_before(client: TestClient) -> None:
    ask(client, k=3)
    client.delete("/v1/users/u1")
    with full(client):
        assert client.post("/v1/recommend", json={"user": "u1", "k": 3}).status_code == 503


def test_a_list_is_shown_again_by_the_release_that_answers_now(client: TestClient, store: Store) -> None:
    ask(client, k=3)
    store.publish("r-two", [FeatureRow("u1", 5, (1,), None, (), "two", "q", 5, 0)], 10)
    client.post("/v1/admin/releases:activate", json={"release": "r-two"})
    deadline = time.monotonic() + 5
    while (answer := ask(client, user="u9", k=3))["release"] != "r-two" and time.monotonic() < deadline:
        time.sleep(0.02)
    with full(client):
        assert client.post("/v1/recommend", json={"user": "u1", "k": 2}).status_code == 503, "made by the other release"
    assert answer["release"] == ask(client, k=2)["release"] == "r-two"
    with full(client):
        assert items(client.post("/v1/recommend", json={"user": "u1", "k": 2}).json()) == ["two", "item-0"]


def test_never_refuses_as_if_nothing_were_kept(store: Store, makers: dict[str, ListMaker]) -> None:
    for client in opened(store, makers, policy="never", cache_s=0.0):
        ask(client)
        with full(client):
            assert client.post("/v1/recommend", json={"user": "u1"}).status_code == 503


def test_the_threshold_decides_while_there_is_room(store: Store, makers: dict[str, ListMaker]) -> None:
    for client in opened(store, makers, policy="threshold", policy_settings={"load": 0.0, "age_s": 60}, cache_s=0.0):
        assert not ask(client, k=4)["kept"] and ask(client, k=4)["kept"] and makers["one"].calls == 1
        assert not ask(client, k=40)["kept"], "too short"


def test_a_list_made_in_a_hurry_is_better_than_none(client: TestClient) -> None:
    client.post("/v1/recommend", json={"user": "unlucky"})
    with full(client):
        answer = client.post("/v1/recommend", json={"user": "unlucky"}).json()
    assert answer["kept"] and answer["late"] == ["slow"]


def test_at_three_times_the_capacity_everybody_who_has_a_list_is_answered(
    store: Store, makers: dict[str, ListMaker]
) -> None:
    users = [f"user-{number}" for number in range(40)]
    scorers = Scorers(store, lambda run: makers[run.name])
    scorers.refresh()
    values = {"limits": {"wait_s": 0.1}, "recommend": {"cache_s": 0.0}}
    app = build_app(store, scorers, ServingSettings.model_validate(values), Keyring(), SteadyClock())

    async def flood() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for user in users:
                assert (await client.post("/v1/recommend", json={"user": user})).status_code == 200
            makers["one"].seconds = 0.01
            asked = []
            for number in range(150):  # 300 a second of at most 100 that can be computed
                asked.append(asyncio.ensure_future(client.post("/v1/recommend", json={"user": users[number % 40]})))
                await asyncio.sleep(1 / 300)
            return await asyncio.gather(*asked)

    answers = asyncio.run(flood())
    kept = [answer.json()["kept"] for answer in answers]
    assert [answer.status_code for answer in answers] == [200] * 150 and 0 < sum(kept) < 150
    assert all(len(answer.json()["items"]) == 10 for answer in answers)
