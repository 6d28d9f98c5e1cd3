"""The page of comparisons over real HTTP: what it serves, takes, refuses and keeps."""

from __future__ import annotations

import http.client
import json
import re
import threading

import pytest
from tests.copywriting.test_copy_review import A, B

from taiji.copywriting.copy_review import CopyReview, judged_pairs
from taiji.copywriting.copy_review_page import CopyReviewServer


@pytest.fixture
def served(tmp_path):
    with (
        CopyReview([A, B], "ada", tmp_path) as session,
        CopyReviewServer(session, {"a": [("title", "<b>A</b>")]}) as server,
    ):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, body and json.dumps(body), {k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    raw = reply.read().decode()
    connection.close()
    return reply.status, raw


def post(server, body):
    status, raw = ask(server, "POST", "/review", body, X_Review_Token=server.token)
    return status, json.loads(raw)


def test_two_copies_are_shown_without_scores_categories_and_markup(served):
    status, page = ask(served, "GET", "/")
    assert status == 200 and "ada" in page and "{{" not in page and A.left not in page
    assert not re.search(r"https?://|@import|<link[^>]+stylesheet|src=", page)
    state = json.loads(ask(served, "GET", "/state")[1])
    assert state["pair"] == {
        "key": A.key,
        "left": A.left,
        "right": A.right,
        "item": "a",
        "facts": [["title", "<b>A</b>"]],
    }
    assert json.loads(ask(served, "GET", "/state?skip=1")[1])["pair"]["key"] == B.key


def test_choices_are_kept_to_the_end_and_can_be_taken_back(served, tmp_path):
    assert post(served, {"key": A.key, "choice": "right"})[1]["pair"]["key"] == B.key
    status, done = post(served, {"key": B.key, "choice": "even"})
    assert (status, done) == (
        200,
        {"outcome": "even", "pair": None, "progress": {"total": 2, "judged": 2, "waiting": 0}},
    )
    assert judged_pairs(tmp_path)["winner"].to_list() == [A.right]
    assert post(served, {"undo": True})[1]["pair"]["key"] == B.key


def test_what_is_no_choice_is_refused_and_nothing_is_kept(served, tmp_path):
    assert ask(served, "POST", "/review", {"key": A.key, "choice": "left"})[0] == 403
    assert post(served, {"key": A.key, "choice": "both"})[0] == 422
    assert post(served, {"key": A.key})[0] == 400 == post(served, [1])[0]
    assert post(served, {"key": "x", "choice": "left"})[0] == 409 == post(served, {"undo": True})[0]
    assert ask(served, "GET", "/", Host="elsewhere.example")[0] == 403
    assert judged_pairs(tmp_path).is_empty()
