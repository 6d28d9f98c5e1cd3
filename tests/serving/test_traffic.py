"""The load generator against a server whose behaviour is known."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from taiji.core.errors import TaijiError
from taiji.serving import traffic
from taiji.serving.settings import ServingSettings
from taiji.serving.traffic import load, of_run


class Server(threading.Thread):
    """Answers every request line; ``/v1/features/slow`` after 50 ms, unknown users with 404, ``busy`` with 503.

    Connections stay open, unless the server closes them: ``told`` after every response, which says so, ``idle`` when
    nothing was requested for 30 ms, ``rude`` instead of every third response, ``gone`` instead of the tenth, for good.
    """

    def __init__(self, closes: str = "") -> None:
        super().__init__(daemon=True)
        self.closes, self.accepted = closes, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.seen: list[bytes] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.closes == "idle":
            connection.settimeout(0.03)
        with suppress(TimeoutError), connection:
            self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        while data := connection.recv(65536):
            self.seen.append(data)
            if self.closes == "rude" and len(self.seen) % 3 == 0:
                return
            if self.closes == "gone" and len(self.seen) == 10:
                self.listener.shutdown(socket.SHUT_RDWR)
                return
            status = b"404 Not Found" if b"nobody" in data else b"503 Busy" if b"busy" in data else b"200 OK"
            if b"slow" in data:
                time.sleep(0.05)
            told = b"Connection: close\r\n" if self.closes == "told" else b""
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Len")
            connection.sendall(b"gth: 5\r\n" + told + b"\r\nhel")  # in pieces, as networks do
            connection.sendall(b"lo")
            if told:
                return


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.listener.close()


def test_a_closed_loop_asks_as_fast_as_it_is_answered(server: Server) -> None:
    report = load(server.url, ["a b", "c"], kind="read", seconds=0.3, connections=2, key="secret")
    assert report.requests > 20 and report.all_2xx and report.statuses == {200: report.requests}
    assert report.rate == pytest.approx(report.requests / report.seconds)
    assert 0 < report.p50 <= report.p90 <= report.p99 <= report.worst
    first = server.seen[0]
    assert first.startswith(b"GET /v1/features/") and b"Authorization: Bearer secret\r\n" in first
    assert any(b"/a%20b " in data for data in server.seen)


def test_an_open_loop_charges_a_slow_server_for_everybody_who_waits(server: Server) -> None:
    report = load(server.url, ["slow"], kind="read", seconds=0.5, connections=1, rate=40)  # 40/s asked, 20/s possible
    assert report.p50 > 75  # 50 ms at the server, the rest in the queue
    assert 0 < report.goodput < 25


def test_late_and_failed_answers_are_no_good(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(server.url, ["u"], kind="read", seconds=0.2, connections=1).goodput > 0
    assert load(server.url, ["nobody"], kind="read", seconds=0.1, connections=1).goodput == 0
    monkeypatch.setattr(traffic, "PATIENCE_S", 0.04)
    assert load(server.url, ["slow"], kind="read", seconds=0.2, connections=1).goodput == 0


def test_quick_refusals_are_counted_and_make_no_latency_better(server: Server) -> None:
    report = load(server.url, ["busy", "slow"], kind="read", seconds=0.5, connections=4)
    assert (
        set(report.statuses) == {200, 503} and report.requests == sum(report.statuses.values()) > report.statuses[200]
    )
    assert report.p50 > 50 and not report.all_2xx
    alone = load(server.url, ["busy"], kind="read", seconds=0.1, connections=1)
    assert alone.requests and alone.p50 is alone.p90 is alone.p99 is alone.worst is None


def test_an_open_loop_keeps_its_rate(server: Server) -> None:
    report = load(server.url, ["u"], kind="health", seconds=0.5, connections=4, rate=100)
    assert 45 <= report.requests <= 51


@pytest.mark.parametrize("closes", ["told", "idle"])
@pytest.mark.parametrize("rate", [None, 20.0], ids=["closed", "open"])
def test_a_connection_that_the_service_closes_is_opened_again(closes: str, rate: float | None) -> None:
    server = Server(closes)
    server.start()
    report = load(server.url, ["slow"], kind="read", seconds=0.6, connections=2, rate=rate)
    server.listener.close()
    assert set(report.statuses) == {200} and report.requests >= (8 if rate else 4)
    assert report.errors <= (2 if closes == "idle" else 0)  # a request may reach a connection that is just being closed
    assert server.accepted > 2 or (closes == "idle" and rate is None)  # a closed loop leaves none idle


def test_requests_without_a_response_are_errors_and_the_load_goes_on() -> None:
    server = Server("rude")
    server.start()
    report = load(server.url, ["u"], kind="read", seconds=0.3, connections=2)
    server.listener.close()
    assert report.errors > 3 and report.requests > 6
    assert report.errors + report.requests == len(server.seen)


def test_a_service_that_goes_away_makes_errors() -> None:
    server = Server("gone")
    server.start()
    report = load(server.url, ["u"], kind="read", seconds=0.5, connections=1)
    assert report.requests == 9 and 2 <= report.errors <= 6  # the tenth request, and an attempt each tenth of a second


def test_other_statuses_are_counted(server: Server) -> None:
    report = load(server.url, ["nobody"], kind="read", seconds=0.1, connections=1)
    assert set(report.statuses) == {404} and not report.all_2xx


@pytest.mark.parametrize("kind", ["batch", "rank", "recommend", "write"])
def test_bodies_are_complete(server: Server, kind: str) -> None:
    load(server.url, ["u"], ["i"], kind=kind, seconds=0.1, connections=1)  # type: ignore[arg-type]
    head, _, body = server.seen[0].partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    keys = [data.split(b"Idempotency-Key: ")[1][:36] for data in server.seen if b"Idempotency-Key" in data]
    assert len(set(keys)) == len(keys) == (len(server.seen) if kind == "write" else 0)


def test_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(TaijiError, match="No service responds"):
        load("http://127.0.0.1:1", ["u"], seconds=0.1)
    with pytest.raises(TaijiError, match="address"):
        load("127.0.0.1:80", ["u"])
    for url in ("http://example.com", "http://example.com:80", "http://127.0.0.1", "http://127.0.0.1:http"):
        with pytest.raises(TaijiError, match=r"(?s)on this machine, such as http://127\.0\.0\.1:PORT"):
            load(url, ["u"])
    with pytest.raises(TaijiError, match="no users or items"):
        load("http://127.0.0.1:1", [])
    with pytest.raises(TaijiError, match="no users or items"):
        load("http://127.0.0.1:1", ["u"], kind="rank")


def test_users_and_items_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("v")
    (tmp_path / "users").write_text("a b c")
    users, items = of_run(tmp_path, ServingSettings(backend="tests.serving.doubles"), limit=2)
    assert users == ["a", "b"] and items == ["item-0", "item-1"]
