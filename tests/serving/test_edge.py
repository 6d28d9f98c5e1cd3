"""Limits of the HTTP edge, against a server of its own: large, slow and many heads, silent and idle connections."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import uvicorn

from taiji.serving.edge import DrainingServer, Edge, allow_files
from taiji.serving.settings import LimitSettings

OK = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LIMITS = LimitSettings(head_bytes=2048, head_s=0.2, connections=5)


class Served:
    """A server of an application that answers after the body has come, and the reasons for which it refused."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.edge = Edge(LIMITS, lambda reason: self.refused.update([reason]))
        self.listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            self._app,
            http=self.edge,  # type: ignore[arg-type]
            ws="none",
            h11_max_incomplete_event_size=LIMITS.head_bytes,
            log_config=None,
            log_level="error",
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            timeout_keep_alive=1,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    async def _app(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/long":
            await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def connect(self, *pieces: bytes) -> socket.socket:
        connection = socket.create_connection(self.listener.getsockname(), timeout=10)
        for piece in pieces:
            connection.sendall(piece)
        return connection


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    made.thread.start()
    yield made
    made.server.should_exit = True
    made.thread.join()


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status and the body of the next answer; 0 where the connection was closed without one."""
    found = b""
    try:
        while b"\r\n\r\n" not in found or not found.partition(b"\r\n\r\n")[2]:
            piece = connection.recv(4096)
            if not piece:
                break
            found += piece
    except ConnectionResetError:
        pass
    return (int(found.split(b" ", 2)[1]), found.partition(b"\r\n\r\n")[2]) if found else (0, b"")


def test_a_head_of_any_size_is_refused_at_its_limit(served: Served) -> None:
    one = served.connect(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 3000)
    status, body = answer(one)
    assert status == 431 and json.loads(body)["code"] == "large_head"
    assert answer(served.connect(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000))[0] == 431
    flood, sent = served.connect(b"GET / HTTP/1.1\r\nX: "), 0
    with pytest.raises(OSError):  # the server hung up long before
        while sent < 300 << 20:
            sent += flood.send(b"a" * 65536)
    assert sent < 20 << 20 and answer(served.connect(OK)) == (200, b"ok")
    assert served.refused["large_head"] == 3


def test_the_end_of_a_chunked_body_is_bounded_too(served: Served) -> None:
    start = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    for flood in (b"1;" + b"x" * 5000, b"0\r\n" + b"T: t\r\n" * 1000):
        assert answer(served.connect(start + flood))[0] == 431
    assert answer(served.connect(start + b"0\r\n\r\n")) == (200, b"ok")


def test_what_is_not_http_is_told_so(served: Served) -> None:
    assert answer(served.connect(b"\x16\x03\x01\x02\x00\r\n\r\n"))[0] == 400


def test_a_head_that_comes_drop_by_drop_ends(served: Served) -> None:
    slow, start = served.connect(b"GET / HT"), time.monotonic()
    for letter in b"TP/1.1\r\nHost":
        time.sleep(0.03)
        try:
            slow.send(bytes([letter]))
        except OSError:
            break
    status = answer(slow)[0]
    assert time.monotonic() - start < 5 and (status in (0, 408)) and served.refused["slow_head"] == 1
    again = served.connect(OK)  # a further request of a connection has its own time
    assert answer(again)[0] == 200
    again.sendall(b"GET / HTTP")
    assert answer(again)[0] == 408


def test_a_connection_that_says_nothing_ends(served: Served) -> None:
    assert answer(served.connect()) == (0, b"") and served.refused["silent"] == 1
    assert answer(served.connect(OK)) == (200, b"ok")


def test_an_idle_connection_may_ask_again_later(served: Served) -> None:
    kept = served.connect(OK)
    assert answer(kept) == (200, b"ok")
    time.sleep(0.4)  # longer than a head may take
    kept.sendall(OK)
    assert answer(kept) == (200, b"ok")


def test_silent_connections_make_room_and_working_ones_stay(served: Served) -> None:
    long = served.connect(OK.replace(b"/ ", b"/long "))
    body = served.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\na")
    crowd = [served.connect() for _ in range(50)]
    assert answer(served.connect(OK)) == (200, b"ok")
    assert answer(long) == (200, b"ok") and answer(body)[0] == 0 and served.refused["crowded"] >= 45
    assert len(crowd) == 50 and served.edge.open <= LIMITS.connections


def test_where_everybody_is_being_answered_a_further_one_is_refused(served: Served) -> None:
    busy = [served.connect(OK.replace(b"/ ", b"/long ")) for _ in range(LIMITS.connections)]
    time.sleep(0.1)
    assert answer(served.connect(OK))[0] in (0, 503) and served.refused["connections"] == 1
    assert [answer(connection) for connection in busy] == [(200, b"ok")] * LIMITS.connections


def test_requests_in_a_row_are_answered_in_order(served: Served) -> None:
    two = served.connect(OK + OK.replace(b"/ ", b"/long "))
    found = b""
    while found.count(b"ok") < 2:
        found += two.recv(4096)
    assert found.count(b"HTTP/1.1 200") == 2


def test_a_server_drains_before_it_ends(served: Served) -> None:
    told: list[bool] = []
    server = DrainingServer(served.server.config, 0.2, lambda: told.append(True))
    server.handle_exit(15, None)
    assert told == [True] and not server.should_exit
    time.sleep(0.3)
    assert server.should_exit
    for seconds, signals in ((0.0, 1), (60.0, 2)):  # at once where nothing is to be waited for, or who asks cannot wait
        server = DrainingServer(served.server.config, seconds, lambda: None)
        for _ in range(signals):
            server.handle_exit(2, None)  # Ctrl-C, which the terminal sends to the supervisor as well
        assert not server.should_exit
        for _ in range(signals):
            server.handle_exit(15, None)
        assert server.should_exit


@pytest.mark.parametrize("drain_s", [0.0, 0.1], ids=["at once", "drained"])
def test_a_process_goes_on_after_its_server_was_stopped(drain_s: float) -> None:
    """What follows, such as sending the last traces, must happen."""
    code = f"""
import os, signal, threading, uvicorn
from taiji.serving.edge import DrainingServer
async def app(scope, receive, send): pass
server = DrainingServer(uvicorn.Config(app, port=0, lifespan="off", log_config=None), {drain_s}, lambda: None)
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
server.run()
print("last steps", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "last steps\n"), done.stderr


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, set_to in (((256, 4096), (1200, 4096)), ((256, 500), (500, 500)), ((65536, 65536), None)):
        seen: list[object] = []
        monkeypatch.setattr(resource, "getrlimit", lambda kind, given=given: given)
        monkeypatch.setattr(resource, "setrlimit", lambda kind, limits, seen=seen: seen.append(limits))
        allow_files(1000)
        assert seen == ([set_to] if set_to else [])
