"""Search finds what a plain loop finds, in a total order, page by page."""

from __future__ import annotations

import pytest

from taiji.inspector.people import ONLY, ORDERS, USERS_PER_PAGE, People
from taiji.inspector.run_view import RunFiles


@pytest.fixture(scope="module")
def found(run_folder):
    return People(RunFiles(run_folder))


def ids(hits):
    return [row["user_id"] for row in hits.rows]


def test_words_must_all_be_there_and_an_exact_id_comes_first(found):
    texts = {row["user_id"]: row["text"] for row in found.frame.to_dicts()}
    for query in ("user-1", "TOWN 7", "user-3 town", "nobody at all", "20-24 lives"):
        wanted = {user for user, text in texts.items() if all(word in text for word in query.lower().split())}
        hits = found.search(query, size=1000)
        assert set(ids(hits)) == wanted and hits.total == len(wanted)
    assert ids(found.search("user-1"))[0] == "user-1"
    assert found.search("(.*[").total == 0, "a query is text, not a pattern"


@pytest.mark.parametrize("order", ORDERS)
def test_pages_cut_one_order_without_loss(found, order):
    whole = ids(found.search(order=order, size=1000))
    assert len(set(whole)) == len(whole) == 60
    first = found.search(order=order, size=7)
    assert first.pages == 9
    assert [user for page in range(1, 10) for user in ids(found.search(order=order, page=page, size=7))] == whole
    assert ids(found.search(order=order, page=99, size=7)) == ids(found.search(order=order, page=9, size=7)), (
        "beyond the last is the last"
    )


def test_choices_show_only_those(found):
    for only in filter(None, ONLY):
        rows = found.search(only=only, size=1000).rows
        assert rows and all(row[only] > 0 for row in rows)
        assert len(rows) == (found.frame[only] > 0).sum()
    assert found.search(only="no such choice").total == 60
    assert len(found.search().rows) == USERS_PER_PAGE
