"""Health on a port of its own."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from taiji.serving import health_listener
from taiji.serving.health_listener import HealthListener


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    made = socket.create_server(("127.0.0.1", 0))
    yield made
    made.close()


@pytest.fixture
def health(listener: socket.socket) -> Iterator[HealthListener]:
    made = HealthListener(listener)
    made.start()
    yield made
    made.close()


def ask(listener: socket.socket, method: str = "GET", path: str = "/healthz") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.getheader("x-content-type-options") == "nosniff" and answer.getheader("connection") == "close"
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_probe_is_answered_while_the_event_loop_is_held(listener: socket.socket, health: HealthListener) -> None:
    """On the loop itself the probe would be answered when the loop is let go, which here is after the probe."""
    held, go_on = threading.Event(), threading.Event()

    async def work() -> None:
        health.ticked()
        held.set()
        assert go_on.wait(60)

    loop = threading.Thread(target=lambda: asyncio.run(work()))
    loop.start()
    try:
        assert held.wait(60) and ask(listener) == (200, b'{"status":"ok"}')
    finally:
        go_on.set()
        loop.join()


def test_a_loop_that_never_comes_round_is_told(
    listener: socket.socket, health: HealthListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_listener, "STUCK_S", -1.0)
    assert ask(listener)[0] == 503
    monkeypatch.setattr(health_listener, "STUCK_S", 3600.0)
    health.ticked()
    assert ask(listener)[0] == 200


def test_nothing_else_is_answered(listener: socket.socket, health: HealthListener) -> None:
    assert ask(listener, "HEAD") == (200, b"") and ask(listener, path="/healthz?a=b")[0] == 200
    assert ask(listener, "POST")[0] == 405
    assert {ask(listener, path=path)[0] for path in ("/", "/readyz", "/v1/admin/releases", "/healthz/..")} == {404}


def test_those_that_say_nothing_or_too_much_keep_nobody_waiting(
    listener: socket.socket, health: HealthListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_listener, "HEAD_S", 0.1)
    silent = [socket.create_connection(listener.getsockname()) for _ in range(health_listener.CONNECTIONS // 2)]
    assert ask(listener)[0] == 200
    loud = socket.create_connection(listener.getsockname())
    loud.sendall(b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 20_000)
    for client in silent:
        client.settimeout(60)
        assert client.recv(1) == b"", "the connection ends without a word"
        client.close()
    loud.close()
    deadline = time.monotonic() + 60
    while health._open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not health._open and ask(listener)[0] == 200
