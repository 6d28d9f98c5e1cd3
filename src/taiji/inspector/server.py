"""Local, read-only web server. It uses only the standard library, so the inspector needs no optional dependencies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from taiji.core.errors import TaijiError
from taiji.core.web_guard import LocalHandler, LocalServer, content_policy
from taiji.inspector.pages import TEXT, Inspector, Page

logger = logging.getLogger(__name__)
PORT = 8100
HEAD_START_S, PAINT_S = 5.0, 0.3
"""Background loading starts ``PAINT_S`` seconds after the first response, so that this page loads first. Without any
request, it starts after ``HEAD_START_S`` seconds."""
PAGE_HEADERS = {
    "Content-Security-Policy": content_policy(
        style_src="'self'",
        style_src_attr="'unsafe-inline'",
        script_src="'self'",
        connect_src="'self'",
        img_src="'self' data:",
        form_action="'self'",
    ),
    "Cache-Control": "no-cache",
}


class Handler(LocalHandler):
    """Handler of GET and HEAD requests. Other methods are rejected."""

    server: InspectorServer

    def do_GET(self) -> None:
        """Respond with a page."""
        self._send(self._answer())

    def do_HEAD(self) -> None:
        """Respond with only the headers of the page."""
        self._send(self._answer())

    def _reject(self) -> None:
        self.close_connection = True
        self._send(
            Page(b"This server is read-only; it supports only GET and HEAD.\n", 405, TEXT, {"Allow": "GET, HEAD"})
        )

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _reject

    def _answer(self) -> Page:
        if not self.is_local:
            return Page(b"Unknown host.\n", 403, TEXT)
        try:
            address = urlsplit(self.path)
        except ValueError:
            return Page(b"The address is invalid.\n", 400, TEXT)
        try:
            return self.server.inspector.page(address.path, address.query)
        except Exception:
            logger.exception("a page failed")
            return Page(b"Internal error; see the terminal for details.\n", 500, TEXT)

    def _send(self, page: Page) -> None:
        self.send(page.status, page.body, page.kind, {**PAGE_HEADERS, **page.headers})
        self.server.looked_at.set()


class InspectorServer(LocalServer):
    """Server of the pages of an :class:`Inspector` on this machine.

    Args:
        inspector: pages to serve.
        port: port on 127.0.0.1; 0 chooses a free one.

    Raises:
        ResourceError: the port is in use.
    """

    def __init__(self, inspector: Inspector, port: int = PORT) -> None:
        self.inspector = inspector
        self.looked_at = threading.Event()
        super().__init__(port, Handler, "The inspector")


def view(folder: Path, other: Path | None = None, *, port: int = PORT, ready: Callable[[str], object]) -> None:
    """Serve the pages of a run until Ctrl-C.

    Args:
        folder: run directory.
        other: directory of a second run for comparison.
        port: port on 127.0.0.1; 0 chooses a free one.
        ready: function called with the address when the server is ready.

    Raises:
        ArtifactError: the folder is not a run directory, or its stored configuration is damaged.
        ConfigError: the stored configuration is not valid.
        ResourceError: the port is in use.
    """
    inspector = Inspector(folder, other)
    inspector.demand_configurations()
    with InspectorServer(inspector, port) as server:
        threading.Thread(target=_warm, args=(server,), daemon=True).start()
        ready(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def _warm(server: InspectorServer) -> None:
    if server.looked_at.wait(HEAD_START_S):
        time.sleep(PAINT_S)  # let the first page load before background loading occupies the processor
    try:
        server.inspector.warm()
    except TaijiError:
        return  # the error is shown on the page that needs the broken artefact
