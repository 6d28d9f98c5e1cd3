"""The fault benchmark in short, and its checker, which finds what is planted."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import fault_load, faults, list_faults
from tests.serving.rig import RedisServer

from taiji.serving.types import Event, RecommendRequest, UserHistory

NOW = 1_790_000_000_000_000


@pytest.fixture(scope="module")
def recommenders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list_faults.train(tmp_path_factory.mktemp("recommenders"))


@pytest.fixture(scope="module")
def makers(recommenders: list[Path]) -> list[list_faults.Maker]:
    return [list_faults.Maker(run) for run in recommenders]


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_faults_lose_double_and_mix_up_nothing(store: str) -> None:
    if store == "redis" and not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    quick = [
        kind for kind in faults.KINDS if kind not in ("ahead", "freeze", "flood")
    ]  # those come with the slow tests
    row = faults.scenario(store, quick if store == "redis" else ["worker", "disk", "api", "foreign"], 0)
    assert row is not None and not any(row[name] for name in faults.COUNTS), row
    assert row["events"] > 50


@pytest.mark.slow
def test_lists_of_real_recommenders_are_right_under_faults(
    recommenders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "train", lambda folder: recommenders)
    result = faults.measure(quick=True)
    assert all(check.holds for check in result.checks), result


def test_the_checker_sees_a_lost_a_doubled_and_a_foreign_row(tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = faults.World("sqlite", tmp_path, stack)
        books, client = fault_load.Books(), fault_load.Client(world.service.url)
        body = {
            "events": [
                {"user_id": user, "item_id": "i", "timestamp": "2026-01-31T12:00:00Z"} for user in fault_load.USERS[:3]
            ]
        }
        assert client.ask("POST", "/v1/events", body, "planted")[0] == 202
        for place, user in enumerate(fault_load.USERS[:3]):
            books.events[user].add(fault_load.event_name("planted", place))
        deadline = time.monotonic() + 30
        while any(faults.audit(world, books).values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(faults.audit(world, books).values())
        with sqlite3.connect(world.place) as db:
            db.execute("DELETE FROM history WHERE user = ?", (fault_load.USERS[0],))
            db.execute(
                "INSERT INTO history SELECT user, time + 1, id, event FROM history WHERE user = ?",
                (fault_load.USERS[1],),
            )
            db.execute(
                "UPDATE features SET head = CAST(replace(CAST(head AS TEXT), 'echo-1', 'echo-2') AS BLOB) WHERE user = ? AND release LIKE 'one%'",
                (fault_load.USERS[2],),
            )
        found = faults.audit(world, books)
        assert found["lost events"] == 1 and found["duplicated effects"] >= 2 and found["wrong version"] == 1


@pytest.mark.slow
def test_the_checker_of_lists_sees_what_is_wrong_with_one(makers: list[list_faults.Maker]) -> None:
    made = dict(zip(("one", "two"), makers))
    event = Event("e1", "u0", "S20", (list_faults.START + list_faults.SPAN + 3600) * 1_000_000)

    def answer(release: str = "one", events: tuple[Event, ...] = (), **changes: Any) -> list_faults.Answer:
        """The right answer of a release, with changes of its body."""
        request = RecommendRequest(UserHistory("u0", NOW, events, len(events)), 5, ("S9", "nothing"))
        found = made[release].recommender.recommend([request])[0]
        body = {"release": release, "items": [{"item": item} for item in found.items]}
        body |= {"late": [], "failed": [], "unranked": 0, "unknown_exclusions": ["nothing"]}
        question = {"user": "u0", "k": 5, "exclude": ["S9", "nothing"]}
        return list_faults.Answer(question, body | changes, (event,), 0.0, NOW, NOW + 60_000_000, False, False)

    def wrong(*answers: list_faults.Answer) -> list[str]:
        found = list_faults.verdicts(answers, made)
        return [name for name in ("wrong lists", "forbidden items", "wrong release") if found[name]]

    before, after = answer(), answer(events=(event,))
    items = before.body["items"]
    assert before.body != after.body and before.body["items"] != answer("two").body["items"]
    assert wrong(before, after, answer("two")) == []
    assert list_faults.verdicts([before, answer("two")], made)["own lists"] == 2
    assert wrong(after, before) == ["wrong lists"], "a history that shrank"
    assert wrong(replace(before, settled=True)) == ["wrong lists"], "everything had been taken in"
    assert wrong(answer("two", items=items)) == ["wrong lists"], "the list of the other release"
    assert wrong(answer(items=[items[1], items[0], *items[2:]])) == ["wrong lists"]
    assert wrong(answer(late=["sasrec"])) == wrong(answer(unknown_exclusions=[])) == ["wrong lists"]
    for other in ("S9", "S0", "S5", "S99", items[1]["item"]):  # excluded, gone, to come, not there, doubled
        assert wrong(answer(items=[{"item": other}, *items[1:]])) == ["wrong lists", "forbidden items"], other
    assert wrong(replace(before, behind_s=0.5)) == []
    assert (
        wrong(replace(before, behind_s=0.5, exact=True)) == wrong(replace(before, behind_s=60.0)) == ["wrong release"]
    )
