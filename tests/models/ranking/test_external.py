"""Adapters against a real local server and a real module."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from taiji.core.errors import TaijiError
from taiji.models.ranking.external import CallableRanker, HttpRanker, open_ranker
from taiji.models.ranking.settings import ExternalSettings

USERS, ITEMS, AS_OFS = np.array([3, 0, 59]), np.array([7, 79, 7]), np.array([1_577_836_800_000_000, 5, 6])


class Handler(BaseHTTPRequestHandler):
    """Scores by item number; ``server.plan`` holds what to do with the next requests."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        step = self.server.plan.pop(0) if self.server.plan else "good"
        if step == "slow":
            self.server.ended.wait(30)  # longer than any time-out here
        status = int(step) if step.isdigit() else 200
        answer = {"scores": [int(i[1:]) / 100 for i in body["item_ids"]], "version": "v7"}
        text = {
            "nonsense": b"<html>",
            "short": b'{"scores": [1]}',
            "text": b'{"scores": ["a", "b", "c"]}',
            "labels": b'{"scores": [true, false, true]}',
        }.get(step, json.dumps(answer).encode())
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.plan, server.requests, server.ended = [], [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


def http(server, shop, **settings):
    return HttpRanker(shop, f"http://127.0.0.1:{server.server_port}/score", ExternalSettings(pause=0.01, **settings))


def test_http_scores_in_batches(server, shop):
    ranker = http(server, shop, batch=2)
    assert ranker.score_pairs(USERS, ITEMS, AS_OFS).tolist() == [0.07, 0.79, 0.07]
    assert [len(r["user_ids"]) for r in server.requests] == [2, 1]
    assert server.requests[0] == {
        "user_ids": ["u3", "u0"],
        "item_ids": ["i7", "i79"],
        "as_ofs": ["2020-01-01T00:00:00Z", "1970-01-01T00:00:00.000005Z"],
    }
    assert ranker.version == "v7"
    assert ranker.score_pairs(USERS[:0], ITEMS[:0], AS_OFS[:0]).shape == (0,)


def test_http_tries_again_where_it_may_help(server, shop):
    server.plan = ["503", "429"]
    assert http(server, shop).score_pairs(USERS, ITEMS, AS_OFS).tolist() == [0.07, 0.79, 0.07]
    server.plan = ["slow"]
    assert http(server, shop, timeout=1.0, attempts=2).score_pairs(USERS, ITEMS, AS_OFS)[0] == 0.07


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("404", "rejected the request"),
        ("nonsense", "cannot be read"),
        ("short", "one finite number per pair"),
        ("text", "not a list of numbers"),
        ("labels", "labels instead of scores"),
    ],
)
def test_http_wrong_answers_are_explained_at_once(server, shop, step, message):
    server.plan = [step]
    with pytest.raises(TaijiError, match=message):
        http(server, shop).score_pairs(USERS, ITEMS, AS_OFS)
    assert len(server.requests) == 1


def test_http_silence_is_explained(server, shop):
    server.plan = ["slow", "500"]
    with pytest.raises(TaijiError, match="does not respond"):
        http(server, shop, timeout=0.2, attempts=2).score_pairs(USERS, ITEMS, AS_OFS)
    nobody = HttpRanker(shop, "http://127.0.0.1:9/none", ExternalSettings(attempts=1))
    with pytest.raises(TaijiError, match="does not respond"):
        nobody.score_pairs(USERS, ITEMS, AS_OFS)


@pytest.mark.parametrize(
    ("answer", "said"),
    [("0.5", "gives no order"), ("n % 2", "labels rather than"), ("n / 7", None)],
    ids=["equal", "labels", "scores"],
)
def test_answers_that_say_little_are_doubted_once(shop, tmp_path, monkeypatch, caplog, answer, said):
    name = f"my_{'constant' if answer == '0.5' else 'labels' if '%' in answer else 'scores'}"
    (tmp_path / f"{name}.py").write_text(f"def score(users, *_):\n    return [{answer} for n in range(len(users))]\n")
    monkeypatch.syspath_prepend(tmp_path)
    ranker = CallableRanker(shop, f"{name}:score")
    with caplog.at_level("WARNING", logger="taiji"):
        for pairs in (3, 200, 200):
            ranker.score_pairs(np.zeros(pairs, int), np.zeros(pairs, int), np.zeros(pairs, int))
    assert [said in record.getMessage() for record in caplog.records] == ([True] if said else [])


def test_callable_by_name(shop, tmp_path, monkeypatch):
    (tmp_path / "my_own_ranker.py").write_text(
        "def score(users, items, moments):\n    return [len(u) + m.year for u, m in zip(users, moments)]\ndef bad(*_):\n    raise KeyError('x')\n"
        "def labels(users, *_):\n    return [True] * len(users)\ndef both(users, *_):\n    return [[0.4, 0.6]] * len(users)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ranker = open_ranker("my_own_ranker:score", shop)
    assert ranker.score_pairs(USERS, ITEMS, AS_OFS).tolist() == [2022, 1972, 1973] and len(ranker.version) == 16
    with pytest.raises(TaijiError, match="KeyError"):
        CallableRanker(shop, "my_own_ranker:bad").score_pairs(USERS, ITEMS, AS_OFS)
    with pytest.raises(TaijiError, match="labels instead of scores"):
        CallableRanker(shop, "my_own_ranker:labels").score_pairs(USERS, ITEMS, AS_OFS)
    with pytest.raises(TaijiError, match="one finite number per pair"):
        CallableRanker(shop, "my_own_ranker:both").score_pairs(USERS, ITEMS, AS_OFS)
    for name in ("my_own_ranker:none", "no_such_module:score", "my_own_ranker"):
        with pytest.raises(TaijiError, match="Could not import"):
            CallableRanker(shop, name)
