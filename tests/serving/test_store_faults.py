"""The fault benchmark in short, and its checker, which finds what is planted."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from pathlib import Path

from benchmarks import faults


def test_faults_lose_double_and_mix_up_nothing() -> None:
    result = faults.measure(quick=True)
    assert all(check.holds for check in result.checks), result


def test_the_checker_sees_a_lost_a_doubled_and_a_foreign_row(tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = faults.World("sqlite", tmp_path, stack)
        books, client = faults.Books(), faults.Client(world.service.url)
        body = {
            "events": [
                {"user_id": user, "item_id": "i", "timestamp": "2026-01-31T12:00:00Z"} for user in faults.USERS[:3]
            ]
        }
        assert client.ask("POST", "/v1/events", body, "planted")[0] == 202
        name = faults.hashlib.sha256(b"planted").hexdigest()[:32]
        for place, user in enumerate(faults.USERS[:3]):
            books.events[user].add(f"{name}-{place}")
        deadline = faults.time.monotonic() + 30
        while any(faults.audit(world, books).values()) and faults.time.monotonic() < deadline:
            faults.time.sleep(0.1)
        assert not any(faults.audit(world, books).values())
        with sqlite3.connect(world.place) as db:
            db.execute("DELETE FROM history WHERE user = ?", (faults.USERS[0],))
            db.execute(
                "INSERT INTO history SELECT user, time + 1, id, event FROM history WHERE user = ?", (faults.USERS[1],)
            )
            db.execute(
                "UPDATE features SET head = CAST(replace(CAST(head AS TEXT), 'echo-1', 'echo-2') AS BLOB) WHERE user = ? AND release LIKE 'one%'",
                (faults.USERS[2],),
            )
        found = faults.audit(world, books)
        assert found["lost events"] == 1 and found["duplicated effects"] >= 2 and found["wrong version"] == 1
