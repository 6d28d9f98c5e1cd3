"""HTTP edge of one process: the handling of connections before the application sees a request.

uvicorn's h11 protocol parses requests and limits the size of a head (request line and headers). This module adds a
time limit for the arrival of the head, and a limit on open connections. If there are too many, it closes the
connection whose client has kept the service waiting the longest.
"""

from __future__ import annotations

import asyncio
import http
import json
import resource
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from taiji.serving.gate import POLICY
from taiji.serving.settings import LimitSettings

SPARE_FILES = 200
"""Number of files that a process may open in addition to its connections."""
REFUSALS = {
    400: ("malformed", "This is not an HTTP request."),
    408: ("slow_head", "The head of the request did not arrive in time."),
    431: ("large_head", "The head of the request is too large."),
    503: ("connections", "Too many connections; try again later."),
}


class Edge:
    """Limits and open connections of one process; uvicorn calls it to create the protocol of each connection.

    Args:
        limits: limits of the size and arrival time of a head, and of the number of connections.
        refused: callback that gets the reason for every connection that is rejected or closed.
    """

    def __init__(self, limits: LimitSettings, refused: Callable[[str], object]) -> None:
        self.limits, self.refused = limits, refused
        self.waiting: dict[EdgeProtocol, None] = {}
        """Connections whose client has not sent a whole request, the longest waiting first."""
        self.open = 0

    def __call__(self, **options: Any) -> EdgeProtocol:
        """Return the protocol of a new connection; called by uvicorn."""
        return EdgeProtocol(self, **options)

    def make_room(self) -> bool:
        """If there are too many connections, close the one whose client has kept the service waiting the longest.

        Return whether the new connection may stay.
        """
        if self.open <= self.limits.connections:
            return True
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        self.refused("crowded")
        oldest.end()
        return True


class EdgeProtocol(H11Protocol):
    """Protocol of one connection."""

    def __init__(self, edge: Edge, **options: Any) -> None:
        super().__init__(**options)
        self._edge = edge
        self._timer: asyncio.TimerHandle | None = None
        self._counted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection unless there are too many, and wait for its first request."""
        super().connection_made(transport)
        self._edge.open += 1
        self._counted = True
        if not self._edge.make_room():
            self._refuse(503)
            return
        self._edge.waiting[self] = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Let uvicorn handle the received data; then record whether the connection is waiting for its client."""
        super().handle_events()
        state = self.conn.their_state
        if self.transport.is_closing():
            return
        if state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect_head()
        elif state is not h11.IDLE:
            self._stop_timer()
        if state in (h11.IDLE, h11.SEND_BODY):
            self._edge.waiting.setdefault(self)
        else:
            self._edge.waiting.pop(self, None)

    def send_400_response(self, msg: str) -> None:
        """Respond to a request that h11 rejected, with the status that h11 proposes."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        self._refuse(status if status in REFUSALS else 400)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its client never read the last response."""
        self.end()

    def end(self) -> None:
        """Close the connection; data that its client has not read yet is lost."""
        self._leave()
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._edge.limits.head_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self.conn.trailing_data[0]:
            self._refuse(408)
        else:  # a client that sent nothing gets no response
            self._edge.refused("silent")
            self.end()

    def _refuse(self, status: int) -> None:
        """Send an error response, unless a response has begun, and close the connection."""
        code, message = REFUSALS[status]
        self._edge.refused(code)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(whole_answer(status, json.dumps({"code": code, "message": message}).encode()))
        self._leave()
        self.transport.close()

    def _leave(self) -> None:
        self._stop_timer()
        self._edge.waiting.pop(self, None)
        if self._counted:
            self._counted = False
            self._edge.open -= 1

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class DrainingServer(uvicorn.Server):
    """Server that keeps responding for a while after the signal to stop.

    Args:
        config: configuration of uvicorn.
        drain_s: seconds to drain.
        told: callback that is called when draining begins.
        ticked: callback that is called ten times per second while the event loop runs.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain_s: float,
        told: Callable[[], object],
        ticked: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._drain_s, self._told, self._ticked = drain_s, told, ticked
        self._drains = False

    async def on_tick(self, counter: int) -> bool:
        """Report that the event loop is running, and return whether the server should stop."""
        self._ticked()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first SIGTERM, and stop at the second.

        Ctrl-C in a terminal also reaches this process, but its supervisor decides what follows from it. uvicorn's own
        handler is not called: at the end it would raise the signal again, which would kill the process before it could
        send its last traces and close the store.
        """
        if sig == signal.SIGINT:
            return
        if self._drains or not self._drain_s:
            self._end()
            return
        self._drains = True
        self._told()
        timer = threading.Timer(self._drain_s, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        self.should_exit = True


def whole_answer(status: int, body: bytes, *, with_body: bool = True) -> bytes:
    """Return the bytes of a response that closes the connection; ``with_body`` is False for HEAD."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *([(b"retry-after", b"1")] if status == 503 else []),
        *POLICY,
    ]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (
        status,
        http.HTTPStatus(status).phrase.encode(),
        lines,
        body if with_body else b"",
    )


def allow_files(connections: int) -> None:
    """Raise the limit of open files of this process, as far as the system allows, so that it can hold its
    connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
