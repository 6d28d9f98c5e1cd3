"""The web server: local, read-only, and from the standard library, so that the inspector needs no extra."""

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
"""Seconds that background loading waits for a first page, and then for its style sheet and script."""
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
    """Handler of GET and HEAD; other methods are rejected."""

    server: InspectorServer

    def do_GET(self) -> None:
        """Answer with a page."""
        self._send(self._answer())

    def do_HEAD(self) -> None:
        """Answer with the headers of the page only."""
        self._send(self._answer())

    def _reject(self) -> None:
        self.close_connection = True
        self._send(Page(b"This server only shows; it understands GET and HEAD.\n", 405, TEXT, {"Allow": "GET, HEAD"}))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _reject

    def _answer(self) -> Page:
        if not self.is_local:
            return Page(b"Unknown host.\n", 403, TEXT)
        try:
            asked = urlsplit(self.path)
        except ValueError:
            return Page(b"This is not an address.\n", 400, TEXT)
        try:
            return self.server.inspector.page(asked.path, asked.query)
        except Exception:
            logger.exception("a page failed")
            return Page(b"This is our fault; the terminal has the details.\n", 500, TEXT)

    def _send(self, page: Page) -> None:
        self.send(page.status, page.body, page.kind, {**PAGE_HEADERS, **page.headers})
        self.server.looked_at.set()


class InspectorServer(LocalServer):
    """Server of the pages of an :class:`Inspector` on this machine.

    Args:
        inspector: the pages.
        port: 0 takes any free one.

    Raises:
        ResourceError: the port is taken.
    """

    def __init__(self, inspector: Inspector, port: int = PORT) -> None:
        self.inspector = inspector
        self.looked_at = threading.Event()
        super().__init__(port, Handler, "The inspector")


def view(folder: Path, other: Path | None = None, *, port: int = PORT, ready: Callable[[str], object]) -> None:
    """Show a run until Ctrl-C.

    Args:
        folder: the run directory.
        other: a run to compare it with.
        port: port on 127.0.0.1; 0 is any free port.
        ready: called with the address once the server answers.

    Raises:
        ArtifactError: the folder is not a run directory, or the configuration that it keeps is damaged.
        ConfigError: that configuration does not fit.
        ResourceError: the port is taken.
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
        time.sleep(PAINT_S)  # show the first page before background loading occupies the processor
    try:
        server.inspector.warm()
    except TaijiError:
        return  # the page that needs the broken artefact shows the error
