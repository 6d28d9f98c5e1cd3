"""Listener that answers only ``/healthz``, in its own thread and on its own port.

On the port of the API, a probe waits until the event loop has handled earlier requests, which may take seconds on a
busy machine while hundreds of clients send large bodies. On this port, a probe does not wait for other requests. The
response says whether the event loop of the API is still running.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import suppress

from taiji.serving.edge import whole_answer

STUCK_S = 30.0
"""Seconds without an iteration of the event loop after which the process is unhealthy. An iteration takes far less,
under any load.
"""
HEAD_S, HEAD_BYTES, CONNECTIONS = 1.0, 4096, 100
"""Limits: seconds and bytes of a request's head, and number of simultaneous connections."""


class HealthListener:
    """Health listener of one process.

    Args:
        listener: bound and listening socket; several processes may share it.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener, self._seen, self._open = listener, time.monotonic(), 0
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ticked(self) -> None:
        """Record that the event loop of the process is running."""
        self._seen = time.monotonic()

    def close(self) -> None:
        """Stop the thread, and wait for its end."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._listener, limit=HEAD_BYTES)
        async with server:
            await self._ended.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS:
                with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(HEAD_S):
                        head = await reader.readuntil(b"\r\n\r\n")
                        writer.write(self._said(head.split(b"\r\n", 1)[0]))
                        await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    def _said(self, line: bytes) -> bytes:
        """Return the response to a request's first line."""
        method, _, rest = line.partition(b" ")
        status, said = self._state()
        if rest.split(b" ")[0].partition(b"?")[0] != b"/healthz":
            status, said = 404, {"code": "no_route", "message": "Only /healthz is answered here."}
        elif method not in (b"GET", b"HEAD"):
            status, said = 405, {"code": "no_method", "message": "Method Not Allowed."}
        return whole_answer(status, json.dumps(said, separators=(",", ":")).encode(), with_body=method != b"HEAD")

    def _state(self) -> tuple[int, dict[str, str]]:
        if time.monotonic() - self._seen > STUCK_S:
            return 503, {"code": "stuck", "message": "The event loop of the process has not run for a long time."}
        return 200, {"status": "ok"}
