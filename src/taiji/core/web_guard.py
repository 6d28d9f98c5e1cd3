"""Protection of local web pages: which hosts may send requests, and what a browser may do with a response.

A foreign web page can make one of its own host names resolve to 127.0.0.1, so that the browser sends its requests to
this machine (DNS rebinding). Such a request is recognised by its ``Host`` header. Every response forbids the browser
to load external resources and to guess content types.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from taiji.core.errors import ResourceError

logger = logging.getLogger(__name__)
ADDRESS = "127.0.0.1"
LOCAL_NAMES = frozenset({ADDRESS, "localhost", "[::1]"})
_LOCAL = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(LOCAL_NAMES)))})(?::\d{{1,5}})?")
FORWARDED = frozenset(
    {
        "forwarded",
        "via",
        "cdn-loop",
        "true-client-ip",
        "client-ip",
        "x-client-ip",
        "x-real-ip",
        "x-cluster-client-ip",
        "x-proxyuser-ip",
    }
)
"""Names of headers that a proxy adds, in addition to those with a prefix in :data:`FORWARDED_FORMS`. A request with
such a header comes from a client other than the machine that opened the connection.
"""
FORWARDED_FORMS = ("x-forwarded", "x-original-", "x-rewrite-", "x-envoy-", "x-amz-cf-", "x-azure-", "cf-", "fastly-")
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every response, in addition to its :func:`content_policy`."""


def names_this_machine(host: str, port: int | None = None) -> bool:
    """Return True if a ``Host`` header names this machine with the given port. If ``port`` is None, any port, or no
    port, is accepted."""
    if port is None:
        return _LOCAL.fullmatch(host) is not None
    return host in {f"{name}:{port}" for name in LOCAL_NAMES}


def forwarded(names: Iterable[str]) -> bool:
    """Return True if the lower-case names of a request's headers show that a proxy forwarded it."""
    return any(name in FORWARDED or name.startswith(FORWARDED_FORMS) for name in names)


def content_policy(**sources: str) -> str:
    """Return a Content-Security-Policy that allows the named sources and nothing else.

    Args:
        sources: allowed sources by directive (``script_src`` for ``script-src``).
    """
    allowed = {"form-action": "'none'"} | {name.replace("_", "-"): value for name, value in sources.items()}
    rules = [f"{name} {value}" for name, value in allowed.items()]
    return "; ".join(["default-src 'none'", *rules, "base-uri 'none'", "frame-ancestors 'none'"])


class LocalHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 handler with protected responses. It has no access log, because addresses may contain user ids."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "taiji", ""
    timeout = 60  # idle connections are closed
    server: LocalServer

    @property
    def is_local(self) -> bool:
        """True if the request names this machine and the server's port, and no proxy forwarded it."""
        hosts = self.headers.get_all("Host", [])
        named = len(hosts) == 1 and names_this_machine(hosts[0], self.server.server_port)
        return named and not forwarded(name.lower() for name in self.headers)

    def send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        """Send a complete response, without the body for a HEAD request.

        Args:
            status: status code.
            body: bytes of the body.
            kind: media type.
            headers: content policy and further headers.
        """
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**HEADERS, **headers, **fixed}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class LocalServer(ThreadingHTTPServer):
    """Server on 127.0.0.1.

    Args:
        port: port; 0 chooses a free one.
        handler: request handler.
        title: title of the page, for messages.

    Raises:
        ResourceError: the port is in use.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, handler: type[LocalHandler], title: str) -> None:
        try:
            super().__init__((ADDRESS, port), handler)
        except OSError as error:
            raise ResourceError(
                f"{title} cannot listen on its port.",
                where=f"{ADDRESS}:{port}",
                found=str(error),
                fix="choose another --port, or --port 0 for a free one",
            ) from error

    def handle_error(self, request: object, client_address: object) -> None:
        """Log the error of a connection, unless it timed out or the browser closed it."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            logger.exception("a connection failed")

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{ADDRESS}:{self.server_port}/"
