"""``POST /v1/recommend`` in-process: the answer, the cache and what ends an entry, metrics, refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.serving.doubles import ListMaker

from taiji.serving.app import build_app
from taiji.serving.clock import SteadyClock
from taiji.serving.keys import Keyring
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
