"""The review's page over real HTTP: what it serves, takes, refuses, and keeps."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading

import pytest
from tests.reasoning.test_review_session import BAD, GOOD, sitting

from taiji.core.errors import TaijiError
from taiji.reasoning.curation import AuditLog
from taiji.reasoning.review_page import LARGEST, ReviewServer


class Browser:
    def __init__(self, server: ReviewServer):
        self.port = server.server_port
        self.token = re.search(r'"token": "([^"]+)"', self.ask("GET", "/")[2].decode())[1]

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        raw = reply.read()
        connection.close()
        return reply.status, reply.headers, raw

    def state(self, skip=0):
        return json.loads(self.ask("GET", f"/state?skip={skip}")[2])

    def submit(self, record, number, scores, **more):
        body = json.dumps({"record": record, "round": number, "scores": scores, **more})
        status, _, raw = self.ask("POST", "/review", body, Content_Type="application/json", X_Review_Token=self.token)
        return status, json.loads(raw)


@pytest.fixture
def served(tmp_path):
    with sitting(tmp_path) as session, ReviewServer(session) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server, Browser(server)
        server.shutdown()


def test_the_page_loads_nothing_and_holds_no_text_of_the_data(served):
    status, headers, raw = served[1].ask("GET", "/")
    page = raw.decode()
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"https?://|@import|<link[^>]+stylesheet|src=", page)
    assert "{{" not in page
    assert "Text number" not in page  # data comes as JSON and becomes text, never markup
    assert all(name in page for name in ("correctness", "structure", "sufficiency", "terminology", "usefulness"))


def test_one_at_a_time_to_the_end(served):
    server, browser = served
    assert browser.state()["draft"] == {
        "record": "r0",
        "round": 1,
        "context": "- Item title: milk",
        "answer": "Item title: bread",
        "rationale": "Text number 0.",
    }
    assert [browser.state(skip)["draft"]["record"] for skip in range(5)] == ["r0", "r1", "r2", "r3", "r0"]
    status, value = browser.submit("r0", 1, GOOD, feedback="fine")
    assert (status, value["outcome"], value["draft"]["record"]) == (200, "accepted", "r1")
    assert browser.submit("r1", 1, BAD, rewrite="Better <b>text</b>.")[1]["draft"] == {
        "record": "r1", "round": 2, "context": "- Item title: milk", "answer": "Item title: bread", "rationale": "Better <b>text</b>.",
    }  # fmt: skip
    for record, number in (("r1", 2), ("r2", 1), ("r3", 1)):
        status, value = browser.submit(record, number, BAD)
    assert value == {
        "outcome": "rejected",
        "draft": None,
        "progress": {"total": 4, "judged": 4, "accepted": 1, "rejected": 3, "waiting": 0},
    }
    log = AuditLog.load(server.session.folder / "log.jsonl")
    assert [e["data"]["kind"] for e in log.entries if e["step"] == "review"] == ["person"] * 5


def test_a_second_tab_gets_a_conflict_and_no_second_entry(served):
    _, browser = served
    assert browser.submit("r0", 1, GOOD)[0] == 200
    status, value = browser.submit("r0", 1, BAD)
    assert status == 409
    assert "no longer open" in value["error"]
    assert browser.state()["progress"]["accepted"] == 1


def test_everybody_at_once_judges_each_draft_once(served):
    server, browser = served
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(browser.submit(f"r{n % 4}", 1, GOOD)[0])) for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] * 4 + [409] * 8
    assert len(server.session.person.file.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"{", 400), (b'{"record": "r0", "round": 1, "scores": 3}', 400), (b'{"record": "r0", "round": "x", "scores": {}}', 400),
     (b'{"record": "r0", "round": 1, "scores": {"structure": 3}}', 422), (b'{"record": "nobody", "round": 1, "scores": {}}', 409), (b"\xff\xfe", 400), (b'{"record": "r0", "round": Infinity, "scores": {}}', 400), (b'{"record": "r0", "round": 1e999, "scores": {}}', 400),
     (b"[" * 20_000, 400), (b'{"record": "\\ud800", "round": 1, "scores": {}}', 400)],
    ids=["empty", "list", "cut off", "one score", "round as text", "scores missing", "unknown record", "not UTF-8", "infinity", "beyond floats", "deep", "half of a surrogate pair"],
)  # fmt: skip
def test_broken_judgements_are_refused(served, body, status):
    server, browser = served
    assert browser.ask("POST", "/review", body, X_Review_Token=browser.token)[0] == status
    assert not server.session.person.file.exists()
    assert browser.state()["progress"]["judged"] == 0


def test_strangers_are_refused(served):
    _, browser = served
    body = json.dumps({"record": "r0", "round": 1, "scores": GOOD})
    assert browser.ask("POST", "/review", body)[0] == 403
    assert browser.ask("POST", "/review", body, X_Review_Token="guess")[0] == 403
    assert browser.ask("GET", "/", Host="evil.example")[0] == 403
    assert browser.ask("GET", "/state", Host=f"evil.example:{browser.port}")[0] == 403
    assert browser.ask("POST", "/review", body, X_Review_Token=browser.token, Host="evil.example")[0] == 403
    assert browser.ask("POST", "/review", b"x" * (LARGEST + 1), X_Review_Token=browser.token)[0] == 413
    assert browser.ask("GET", "/../../etc/passwd")[0] == 404
    assert browser.ask("POST", "/", body, X_Review_Token=browser.token)[0] == 404
    assert browser.state("x")["progress"]["judged"] == 0


def test_an_address_that_is_none_is_told_so(served):
    browser = served[1]
    for method in ("GET", "POST"):
        with socket.create_connection(("127.0.0.1", browser.port), 10) as connection:
            head = f"{method} http://[::1/ HTTP/1.1\r\nHost: 127.0.0.1:{browser.port}\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).split(b" ")[1] in (b"400", b"404")


def test_a_taken_port_is_explained(served):
    server, _ = served
    with pytest.raises(TaijiError, match="cannot listen on its port"):
        ReviewServer(server.session, server.server_port)
