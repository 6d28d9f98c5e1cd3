"""Local pages: which hosts are this machine, and which policies every answer carries."""

from __future__ import annotations

import http.client
import threading

import pytest

from taiji.core.errors import ResourceError
from taiji.core.web_guard import HEADERS, LocalHandler, LocalServer, content_policy, forwarded, names_this_machine


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_names_of_this_machine(host):
    assert names_this_machine(f"{host}:80") and names_this_machine(f"{host}:80", 80) and names_this_machine(host)
    assert not names_this_machine(f"{host}:81", 80), "another port is another server"
    assert not names_this_machine(host, 80), "a browser names every port but 80, and these pages have others"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80",
        "localhost.evil.example:80",
        "127.0.0.2",
        "::1",
        "localhost:80@evil.example",
        "localhost:",
        "localhost:80\n",
    ],
)
def test_names_of_other_machines(host):
    assert not names_this_machine(host) and not names_this_machine(host, 80)


def test_policy_allows_what_is_named_and_nothing_else():
    policy = dict(rule.split(" ", 1) for rule in content_policy(script_src="'self'", form_action="'self'").split("; "))
    assert policy == {
        "default-src": "'none'",
        "form-action": "'self'",
        "script-src": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert "form-action 'none'" in content_policy()


def test_headers_of_proxies_are_known_and_those_of_programs_are_not_taken_for_them():
    for name in ("forwarded", "via", "x-forwarded-proto", "x-real-ip", "cf-connecting-ip", "true-client-ip"):
        assert forwarded(["host", name])
    assert not forwarded(
        ["host", "accept", "x-request-id", "x-requested-with", "traceparent", "authorization", "origin"]
    )


class _Echo(LocalHandler):
    def do_GET(self):
        self.send(200 if self.is_local else 403, b"body", "text/plain", {"X-Frame-Options": "SAMEORIGIN"})

    do_HEAD = do_GET


def test_answers_over_the_network():
    with LocalServer(0, _Echo, "The echo") as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for method, host, status, body in (
            ("GET", f"localhost:{server.server_port}", 200, b"body"),
            ("HEAD", f"127.0.0.1:{server.server_port}", 200, b""),
            ("GET", "evil.example", 403, b"body"),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.request(method, "/", headers={"Host": host})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, body)
            connection.request(method, "/", headers={"Host": host, "X-Forwarded-For": "203.0.113.9"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (403, body), "a proxy of this machine asks for somebody else"
            assert answer.headers["Content-Length"] == "4" and answer.headers["Server"] == "taiji "
            expected = {**HEADERS, "X-Frame-Options": "SAMEORIGIN"}
            assert {name: answer.headers[name] for name in HEADERS} == expected
        with pytest.raises(ResourceError, match="The echo cannot listen on its port"):
            LocalServer(server.server_port, _Echo, "The echo")
        server.shutdown()
