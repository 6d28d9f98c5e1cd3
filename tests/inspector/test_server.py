"""The server as the network sees it: this machine's name only, reading only, and headers that let nothing in or out."""

from __future__ import annotations

import http.client
import threading

import pytest

from taiji.core.errors import TaijiError
from taiji.core.web_guard import ADDRESS
from taiji.inspector.pages import Inspector
from taiji.inspector.server import InspectorServer, view


@pytest.fixture(scope="module")
def server(run_folder):
    with InspectorServer(Inspector(run_folder), 0) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == ADDRESS == "127.0.0.1"


def test_every_answer_carries_the_policies(server):
    for path in ("/", "/users", "/static/inspector.css", "/nothing", "/report"):
        _, headers, body = ask(server, path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'unsafe" not in policy and "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and int(headers["Content-Length"]) == len(body)
    assert "script-src" not in ask(server, "/report")[1]["Content-Security-Policy"], "the report has no script"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1", "localhost:1", ""])
def test_a_foreign_host_is_refused(server, host):
    status, _, body = ask(server, "/users", Host=host)
    assert status == 403 and b"user-" not in body


def test_localhost_is_this_machine_too(server):
    assert ask(server, "/", Host=f"localhost:{server.server_address[1]}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(server, method):
    status, headers, _ = ask(server, "/", method)
    assert status == 405 and headers["Allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(server):
    status, headers, body = ask(server, "/users", "HEAD")
    assert status == 200 and body == b"" and int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/static/..%2f..%2frun.py",
        "/static/%2e%2e/run.py",
        "http://evil.example/users",
        "/%7f",
        "//[",
        "/users/%00",
    ],
)
def test_paths_that_try_to_leave_get_nothing(server, path):
    status, _, body = ask(server, path)
    assert status in (400, 403, 404) and b"root:" not in body and b"import" not in body[:200]


def test_a_taken_port_is_explained(server, run_folder):
    with pytest.raises(TaijiError, match="another --port"):
        InspectorServer(Inspector(run_folder), server.server_address[1])


def test_a_folder_that_is_no_run_ends_before_it_listens(tmp_path):
    with pytest.raises(TaijiError, match="not a run directory"):
        view(tmp_path, ready=lambda url: pytest.fail("it must not listen"))


@pytest.mark.parametrize(
    "text", ["{", "[]", "", '{"data": 5}', "[" * 100_000], ids=["open", "list", "empty", "section", "deep"]
)
def test_a_run_whose_configuration_is_damaged_ends_before_it_listens(tmp_path, run_folder, text):
    (tmp_path / "config.json").write_text(text)
    for folders in ((tmp_path,), (run_folder, tmp_path)):
        with pytest.raises(TaijiError) as refused:
            view(*folders, port=0, ready=lambda url: pytest.fail("it listens"))
        assert str(tmp_path) in str(refused.value)


def test_an_address_with_too_many_fields_is_refused_in_words(server):
    status, _, body = ask(server, "/users?" + "&".join(f"f{number}=1" for number in range(400)))
    assert status == 400 and b"at most" in body
