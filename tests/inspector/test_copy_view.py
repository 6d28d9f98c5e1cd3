"""Copies side by side: every candidate, its score or why it is left out, and the facts; hostile text stays text."""

from __future__ import annotations

import pytest
from tests.inspector.copy_samples import write_copy_run

from taiji.inspector.copy_view import ITEMS, copy_list, copy_view
from taiji.inspector.pages import Inspector
from taiji.inspector.run_view import RunFiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_copy_run(tmp_path_factory.mktemp("copies") / "shown")


def test_items_are_listed_by_pages_with_their_chosen_copy(folder):
    run = RunFiles(folder)
    first, last = copy_list(run, 1), copy_list(run, 99)
    assert (len(first["rows"]), first["total"], last["page"]) == (ITEMS, 61, 2)
    assert (
        first["rows"][0]["title"] == "Alpine lamp" and first["rows"][0]["passed"] == 15 == first["rows"][0]["written"]
    )
    assert last["rows"][-1]["item_id"] == "bad" and last["rows"][-1]["chosen"] is None


def test_candidates_stand_by_category_the_best_first(folder):
    view = copy_view(RunFiles(folder), 0)
    assert [one["name"] for one in view["categories"]] == ["emotional", "factual", "personal", "question", "suspense"]
    for category in view["categories"]:
        scores = [row["score"] for row in category["rows"]]
        assert scores == sorted(scores, reverse=True)
        for row in category["rows"]:
            assert sum(value for _, value in row["parts"]) == pytest.approx(row["score"]) and 0 <= row["share"] <= 100
    best = max((row for one in view["categories"] for row in one["rows"]), key=lambda row: row["score"])
    assert best["category"] == "question" and best["propensity"] == pytest.approx(0.9 + 0.1 / 15)
    assert [fact["text"] for fact in view["comments"]][1:] == ["older words"] and view["reward_model"]
    assert copy_view(RunFiles(folder), 61) is None and copy_view(RunFiles(folder), -1) is None


def test_pages_answer_and_escape(folder):
    inspector = Inspector(folder)
    assert 'href="/copies"' in inspector.page("/", "").body.decode()
    assert "Alpine lamp" in inspector.page("/copies", "").body.decode()
    assert inspector.page("/copies", "page=2").status == 200
    bad = inspector.page("/copies/60", "").body.decode()
    assert "left out" in bad and "<script>document" not in bad
    assert "chosen" in inspector.page("/copies/0", "").body.decode()
    for path in ("/copies/61", "/copies/x"):
        assert inspector.page(path, "").status == 404


def test_copy_about_a_table_has_no_pages_of_users_and_stages(folder, run_folder):
    inspector = Inspector(folder)
    start = inspector.page("/", "").body.decode()
    assert start == inspector.page("/copies", "").body.decode() and "Alpine lamp" in start
    assert 'href="/users"' not in start and "Find a user" not in start and "taiji review RUN --copies" in start
    assert 'href="/users"' in Inspector(run_folder).page("/", "").body.decode()


def test_a_run_without_copies_says_how_to_write_them(run_folder):
    inspector = Inspector(run_folder)
    assert 'href="/copies"' not in inspector.page("/", "").body.decode()
    assert "taiji copy RUN" in inspector.page("/copies", "").body.decode()
