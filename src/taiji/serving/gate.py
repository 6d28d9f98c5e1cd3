"""Gate that checks every request before it reaches a route: API key, scope, rate, size and time limits.

It is a plain ASGI wrapper around the whole application. A path that is not listed here needs the admin scope, so new
routes are closed by default. The whole body is read here, up to the size limit, so routes never receive more than the
limits allow.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from taiji.core.web_guard import HEADERS, content_policy, forwarded, names_this_machine
from taiji.serving.admission import Admission
from taiji.serving.batching import Overloaded
from taiji.serving.body_turns import BodyTurns
from taiji.serving.keys import LOCAL, Key, Keyring
from taiji.serving.logs import log, where
from taiji.serving.readiness import Readiness
from taiji.serving.service_metrics import Metrics
from taiji.serving.settings import LimitSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBES = frozenset({"/healthz", "/readyz"})
"""Paths of health probes, which are cheap and need no key; they have no rate limit."""
OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})
READ_ROUTES = frozenset(
    {("GET", "/metrics"), ("POST", "/v1/features:batch"), ("POST", "/v1/rank"), ("POST", "/v1/recommend")}
)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SINGLE = frozenset({b"authorization", b"host", b"content-length", b"content-type", b"idempotency-key"})
"""Headers that may occur only once per request. Given two, some parsers would use the first and others the last."""
LARGE = 8192
"""Size in bytes above which a body waits for its turn and is parsed outside the event loop. Parsing a thousand events
takes milliseconds, in which the event loop would answer no other request.
"""
ANONYMOUS = ""
KEY, BUSY = "taiji.key", "taiji.busy"
"""Entries of a request's ASGI scope: the name of its API key and, if there is no capacity to compute a response, the
:class:`Overloaded` error.
"""
PAUSE_S = 0.1
"""Delay of a rejection under overload. Without it, clients that retry at once would use up the time needed for
responses, and a short overload would never end.
"""
POLICY = [
    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
    (b"content-security-policy", content_policy().encode()),
]
"""Headers that are added to every response that does not set them."""


def needed_scope(method: str, path: str) -> str | None:
    """Return the scope that a request needs; None for the few open pages."""
    if path in OPEN and method in ("GET", "HEAD"):
        return None
    if (method, path) in READ_ROUTES or (method == "GET" and path.startswith("/v1/features/")):
        return "read"
    return "write" if (method, path) == ("POST", "/v1/events") else "admin"


class Rejected(Exception):
    """Exception that ends a request with a status and a :class:`~taiji.serving.schemas.Problem`."""

    def __init__(
        self, status: int, code: str, message: str, *, places: list[str] | None = None, retry_s: float | None = None
    ) -> None:
        super().__init__(code)
        self.status, self.retry_s = status, retry_s
        self.body = json.dumps({"code": code, "message": message, **({"places": places} if places else {})}).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return ``www-authenticate`` for status 401, and ``retry-after`` if ``retry_s`` is set."""
        found = [(b"www-authenticate", b"Bearer")] if self.status == 401 else []
        return found if self.retry_s is None else [*found, (b"retry-after", str(math.ceil(self.retry_s)).encode())]


async def overloaded(busy: Overloaded) -> Rejected:
    """Wait :data:`PAUSE_S`, then return the rejection of a request under overload."""
    await asyncio.sleep(PAUSE_S)
    return Rejected(503, "overloaded", "The service is overloaded; try again later.", retry_s=busy.seconds)


class Gone(Exception):
    """The client hung up before it was answered."""


class Bucket:
    """Token bucket of one API key: ``rate`` new tokens per second, at most ``burst`` tokens."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst, self._tokens, self._at = rate, burst, float(burst), time.monotonic()

    def wait(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = time.monotonic()
        self._tokens, self._at = min(self._burst, self._tokens + (now - self._at) * self._rate), now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class Gate:
    """Gate around ``app``. Without API keys, every client on this machine has all scopes.

    Args:
        app: the routes.
        keys: known API keys.
        limits: limits per request and per key.
        metrics: metrics in which every response is recorded.
        admissions: admission control by path, for the paths whose responses must be computed.
    """

    def __init__(
        self,
        app: App,
        keys: Keyring,
        limits: LimitSettings,
        metrics: Metrics,
        admissions: Mapping[str, Admission] | None = None,
    ) -> None:
        self._app, self._keys, self._limits, self.metrics = app, keys, limits, metrics
        self._admissions = admissions or {}
        self._turns = BodyTurns(2 * limits.wait_s)
        self.readiness: Readiness | None = None
        """Readiness check of the application, if any; :meth:`drain` makes it report that the process will stop."""
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        # Not from the operating system's random source, because other threads take over during a system call.
        number = f"{random.getrandbits(64):016x}"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [(name, value) for name, value in POLICY if name not in given]
                more.append((b"x-request-id", number.encode()))
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._admit(scope, headers)
            body = await self._body(headers, receive)
            async with asyncio.timeout(self._limits.request_s), AsyncExitStack() as stack:
                if len(body) > LARGE:
                    await stack.enter_async_context(self._turns.turn(scope[KEY]))
                if admission := self._admissions.get(scope["path"]):
                    stack.enter_context(_let_in(admission, scope))
                    await self._while_wanted(scope, body, receive, watched)
                else:
                    await self._app(scope, _replay(body, receive), watched)
        except Rejected as rejected:
            await _answer(watched, self._note(rejected))
        except Overloaded as busy:
            await _answer(watched, self._note(await overloaded(busy)))
        except Gone:
            status = 499  # the usual status for a client that hung up; only the metrics record it
            self.metrics.refuse("gone")
        except TimeoutError:
            log("request timed out", request=number, route=route_of(scope), seconds=self._limits.request_s)
            if not status:
                await _answer(watched, Rejected(504, "timeout", "The response took too long; try again.", retry_s=1))
        except Exception as error:
            log("request failed", request=number, route=route_of(scope), error=where(error))
            if not status:
                await _answer(watched, Rejected(500, "internal", "Internal error; details are in the log."))
        route = route_of(scope)
        if needed_scope(scope["method"], scope["path"]) == "admin" and scope.get(KEY, ANONYMOUS) != ANONYMOUS:
            log("audit", request=number, key=scope[KEY], method=scope["method"], route=route, status=status)
        self.metrics.requests.labels(route, status).inc()
        self.metrics.seconds.labels(route).observe(time.perf_counter() - start)

    async def _while_wanted(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let the application respond, and cancel it if the client disconnects."""
        work = asyncio.ensure_future(self._app(scope, _replay(body, receive), send))
        hung_up = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((work, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Gone
            await work
        finally:
            for task in (work, hung_up):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await hung_up
            if not work.done():
                with suppress(asyncio.CancelledError):
                    await work

    def drain(self) -> None:
        """Report from now on that the process is not ready, because it is going to stop."""
        if self.readiness is not None:
            self.readiness.draining = True
        log("draining")

    def _note(self, rejected: Rejected) -> Rejected:
        self.metrics.refuse(rejected.args[0])
        return rejected

    async def reject(self, request: Request, error: Exception) -> Response:
        """Handle a rejection by a route (exception handler of the application)."""
        assert isinstance(error, Rejected)
        rejected = self._note(error)
        return Response(
            rejected.body,
            rejected.status,
            {name.decode(): value.decode() for name, value in rejected.headers()},
            "application/json",
        )

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Check the head, key, rate limit and scope of a request, and store the key's name in ``scope``.

        Raises:
            Rejected: a check failed.
        """
        if len(headers) < len(scope["headers"]):
            names = [name for name, _ in scope["headers"]]
            if doubled := sorted(name.decode() for name in SINGLE if names.count(name) > 1):
                raise Rejected(400, "doubled", f"The request has more than one header {', '.join(doubled)}.")
        self._bound_head(scope)
        needed = needed_scope(scope["method"], scope["path"])
        key = self._who(headers)
        name = scope[KEY] = key.name if key else ANONYMOUS
        if scope["path"] in PROBES and needed is None:
            return
        bucket = self._buckets.setdefault(name, Bucket(self._limits.rate, self._limits.burst))
        if wait := bucket.wait():
            raise Rejected(429, "rate", "Too many requests with this key.", retry_s=wait)
        if needed is None:
            return
        if not len(self._keys):
            if forwarded(name.decode("latin-1") for name in headers):
                raise Rejected(
                    403,
                    "forwarded",
                    "Without API keys, only requests from this machine are answered, not those that a proxy forwards.",
                )
            if scope["method"] not in ("GET", "HEAD") and _crosses_sites(headers):
                raise Rejected(403, "cross_site", "Without API keys, requests from pages of other sites are rejected.")
            if key is None:
                raise Rejected(
                    401,
                    "unauthorized",
                    "Without API keys, the Host header of a request must name this machine (localhost).",
                )
        if key is None:
            raise Rejected(401, "unauthorized", "A valid API key is required: Authorization: Bearer <key>.")
        if not key.may(needed):
            raise Rejected(403, "forbidden", f"This key lacks the scope {needed!r}.")
        if not scope["path"].isprintable() and CONTROL.search(scope["path"]):  # no route matches a line break
            raise Rejected(422, "invalid", "The path contains control characters.")

    def _bound_head(self, scope: Scope) -> None:
        """Enforce the limits of a head exactly, regardless of the server that has read it."""
        given, limits = scope["headers"], self._limits
        line = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        size = line + sum(len(name) + len(value) for name, value in given)
        if len(given) > limits.headers or size > limits.head_bytes:
            raise Rejected(
                431, "large_head", f"The head has more than {limits.headers} headers or {limits.head_bytes} bytes."
            )

    def _who(self, headers: dict[bytes, bytes]) -> Key | None:
        if not len(self._keys):
            # A foreign web page can reach loopback under its own host name (DNS rebinding), so the name is checked.
            return LOCAL if names_this_machine(headers.get(b"host", b"").decode("latin-1")) else None
        kind, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        return self._keys.find(secret.strip()) if kind.lower() == "bearer" else None

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._limits.body_bytes
        too_large = Rejected(413, "too_large", f"The body is larger than {limit} bytes.")
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            return b""
        if length is not None and not (length.isdigit() and len(length) < 19 and int(length) <= limit):
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Rejected(400, "disconnected", "The body ended early.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Rejected(408, "slow", f"The body did not arrive within {self._limits.body_s:g} s.") from None


@contextmanager
def _let_in(admission: Admission, scope: Scope) -> Iterator[None]:
    """Admit a request. Without capacity, admit it through ``spare`` and set ``BUSY``, so that nothing is computed."""
    with ExitStack() as stack:
        try:
            stack.enter_context(admission.turn(scope[KEY]))
        except Overloaded as busy:
            if admission.spare is None:
                raise
            stack.enter_context(admission.spare.turn(scope[KEY]))
            scope[BUSY] = busy
        yield


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` function that first returns the whole body, then calls ``receive``."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _crosses_sites(headers: dict[bytes, bytes]) -> bool:
    """Return whether, according to the browser, the request comes from a page of another site."""
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    site = headers.get(b"sec-fetch-site", b"none")
    return site not in (b"none", b"same-origin") or (origin is not None and origin.partition(b"://")[2] != host)


def route_of(scope: Scope) -> str:
    """Return the route's template, never the path, which contains a user id."""
    return str(getattr(scope.get("route"), "path", "none"))


async def _answer(send: Send, rejected: Rejected) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(rejected.body)).encode()),
        *rejected.headers(),
    ]
    await send({"type": "http.response.start", "status": rejected.status, "headers": headers})
    await send({"type": "http.response.body", "body": rejected.body})
