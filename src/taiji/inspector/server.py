"""The web server: this machine only, read-only, from the standard library, so that looking needs no extra to be installed.

Every answer forbids the browser to load anything from elsewhere or to run anything but the packaged script. A request
whose ``Host`` is not this machine's is refused, so that no web page can reach the run through a name that it points here.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from taiji.core.errors import TaijiError
from taiji.inspector.pages import TEXT, Inspector, Page

ADDRESS = "127.0.0.1"
PORT = 8100
HEAD_START_S, PAINT_S = 5.0, 0.3
"""How long loading in the background waits for a first page, and then for its style and script."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; style-src-attr 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD; nothing else is understood."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "taiji", ""
    timeout = 60  # a connection that says nothing is closed
    server: InspectorServer

    def do_GET(self) -> None:
        """Answer with a page."""
        self._send(self._answer())

    def do_HEAD(self) -> None:
        """The head of the same answer."""
        self._send(self._answer())

    def _refuse(self) -> None:
        self.close_connection = True
        self._send(Page(b"This server only shows; it understands GET and HEAD.\n", 405, TEXT, {"Allow": "GET, HEAD"}))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self) -> Page:
        port = self.server.server_address[1]
        if self.headers.get("Host", "") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            return Page(b"Unknown host.\n", 403, TEXT)
        try:
            asked = urlsplit(self.path)
        except ValueError:
            return Page(b"This is no address.\n", 400, TEXT)
        try:
            return self.server.inspector.page(asked.path, asked.query)
        except Exception:
            traceback.print_exc()
            return Page(b"This is our fault; the terminal has the details.\n", 500, TEXT)

    def _send(self, page: Page) -> None:
        self.send_response(page.status)
        for name, value in {
            **HEADERS,
            **page.headers,
            "Content-Type": page.kind,
            "Content-Length": str(len(page.body)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)
        self.server.looked_at.set()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: addresses name users."""


class InspectorServer(ThreadingHTTPServer):
    """Serves the pages of an :class:`Inspector` on this machine.

    Args:
        inspector: the pages.
        port: 0 takes any free one.

    Raises:
        TaijiError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, inspector: Inspector, port: int = PORT) -> None:
        self.inspector = inspector
        self.looked_at = threading.Event()
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise TaijiError(
                "The inspector cannot listen there.",
                where=f"{ADDRESS}:{port}",
                found=str(error),
                fix="choose another --port, or --port 0 for any free one",
            ) from error

    @property
    def url(self) -> str:
        """Where to look."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away in the middle of an answer is no event."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            traceback.print_exc()


def view(folder: Path, other: Path | None = None, *, port: int = PORT, ready: Callable[[str], None] = print) -> None:
    """Show a run until Ctrl-C.

    Args:
        folder: the run directory.
        other: a run to compare it with.
        port: where to listen on 127.0.0.1; 0 is any free port.
        ready: called with the address once it answers.

    Raises:
        TaijiError: no run directory, or the port is taken.
    """
    inspector = Inspector(folder, other)
    with InspectorServer(inspector, port) as server:
        threading.Thread(target=_warm, args=(server,), daemon=True).start()
        ready(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def _warm(server: InspectorServer) -> None:
    if server.looked_at.wait(HEAD_START_S):
        time.sleep(PAINT_S)  # the first page goes to the screen before loading takes the processor
    try:
        server.inspector.warm()
    except TaijiError:
        return  # the page that needs the broken artefact says so
