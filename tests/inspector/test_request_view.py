"""A traced request: every candidate with its way, filters and orders, what was taken later, truth beside the
estimate."""

from __future__ import annotations

import pytest
from tests.inspector.recommender_samples import LEFT, write_recommender

from taiji.inspector import request_view as request_views
from taiji.inspector.pages import Inspector
from taiji.inspector.request_view import CANDIDATES, request_list, request_view
from taiji.inspector.run_view import RunFiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_recommender(tmp_path_factory.mktemp("recommends") / "found")


@pytest.fixture(scope="module")
def run(folder):
    return RunFiles(folder)


def view(run, only="", order="way", page=1):
    found = request_view(run, 0, only, order, page)
    assert found is not None
    return found


def test_the_list_of_requests_counts_what_was_found_and_shown(run):
    rows = request_list(run)
    assert len(rows) == 3
    assert (rows[0]["candidates"], rows[0]["targets"], rows[0]["found"], rows[0]["shown"]) == (120, 3, 2, 2)
    assert rows[0]["user_id"] == "user-0" and rows[0]["past"] > 0


def test_a_request_tells_the_way_of_every_candidate(run):
    found = view(run)
    assert [row["place"] for row in found["list"]] == list(range(1, 11))
    assert found["list"][7]["found"] == [("together", 7), ("sasrec", 5)]
    assert [(row["step"], row["candidates"], row["targets"]) for row in found["funnel"]] == [
        ("popular", 60, 1), ("together", 60, 1), ("sasrec", 1, 0), ("merged", 120, 2), ("ranked", 120, 2), ("list", 10, 2)
    ]  # fmt: skip
    assert [row["fate"] for row in found["targets"]] == [
        "shown at position 1",
        "shown at position 2",
        "not found by any retriever",
    ]
    assert found["columns"]["pairs"] == [("click", "rank: click", "true click")]
    estimate, truth = found["list"][0]["pairs"][0]
    assert estimate == 0.5 and 0 <= truth <= 1
    assert {name for name, _ in found["agreement"]} == {"merge", "predicted click", "score"}


def test_the_newest_interactions_are_shown_newest_first(run, monkeypatch):
    monkeypatch.setattr(request_views, "PAST", 1)
    found = view(run)
    before = run.dataset.history.before(0, run.requests.row(0, named=True)["time"])[0]
    assert found["past"] == len(before) > 1 and before[0] != before[-1]
    assert [item["title"] for item in found["recent"]] == [run.dataset.items["title"][int(before[0])]]


def test_filters_orders_and_pages(run):
    everything = view(run)
    assert (everything["total"], everything["pages"], len(everything["candidates"])) == (120, 3, CANDIDATES)
    assert view(run, page=99)["page"] == 3 and view(run, page=0)["page"] == 1
    assert view(run, "shown")["total"] == 10 and view(run, "taken")["total"] == 2
    assert view(run, LEFT[0])["total"] == 55 and view(run, "found: sasrec")["total"] == 1
    assert view(run, "found: nobody")["total"] == 120 and view(run, "<script>")["total"] == 120
    truth = [row["true"] for row in view(run, order="truth")["candidates"]]
    assert truth == sorted(truth, reverse=True)
    merged = [row["merged"] for row in view(run, order="merged")["candidates"]]
    assert merged == sorted(merged, reverse=True)
    assert request_view(run, 3, "", "way", 1) is None and request_view(run, -1, "", "way", 1) is None


def test_pages_answer_and_escape(folder):
    inspector = Inspector(folder)
    overview = inspector.page("/", "").body.decode()
    assert "does not beat popular" in overview and "Against popular &lt;few&gt;." in overview
    assert "Closed loop" in overview and "Value on the log" in overview
    assert 'href="/requests"' in overview and 'href="/alignment"' not in overview
    for name in ("retriever-sasrec", "candidate_ranker", "recommend_report"):
        assert f">{name}</th>" in overview
    assert "rationales" not in overview.split("h-stages")[1], "stages of the other recipe are not there"
    listed = inspector.page("/requests", "")
    assert listed.status == 200 and "User user-0" in listed.body.decode()
    page = inspector.page("/requests/0", "only=taken&order=truth").body.decode()
    assert "not found by any retriever" in page and "later interaction" in page and "<script>document" not in page
    assert '<option value="taken" selected>' in page
    for path in ("/requests/99", "/requests/x", "/requests/-1"):
        assert inspector.page(path, "").status == 404


def test_a_run_without_a_recommender_has_no_requests(run_folder):
    inspector = Inspector(run_folder)
    assert 'href="/requests"' not in inspector.page("/", "").body.decode()
    assert "traced no requests" in inspector.page("/requests", "").body.decode()


def test_the_pages_of_a_recommender_conclude_first_and_speak_of_no_prompts(folder):
    inspector = Inspector(folder)
    overview, users, user = (inspector.page(f"/{page}", "").body.decode() for page in ("", "users", "users/user-0"))
    assert overview.index("Does this recommender beat popularity on shop?") < overview.index('class="tiles"')
    assert "90% intervals" in overview and "What to do next." in overview
    assert "user-0" in users and "user-0" in user
    for page in (users, user):
        assert "prompt" not in page.lower().replace("prompts.css", "") and "rationale" not in page.lower()
