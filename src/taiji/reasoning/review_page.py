"""Local web pages for reviews, operated by keyboard, without external resources. Rationales are rated one draft at a
time, on five axes.

The server binds to 127.0.0.1 and answers only requests that name this machine as their host (against DNS rebinding by
foreign pages). It accepts a judgement only with the token contained in the page, so that no foreign page can post one.
"""

from __future__ import annotations

import json
import secrets
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from taiji.core.errors import TaijiError
from taiji.core.foreign_json import parsed
from taiji.core.web_guard import LocalHandler, LocalServer, content_policy
from taiji.reasoning.review_session import NotWaiting, ReviewSession
from taiji.reasoning.reviewers import AXES, QUESTIONS

PAGE = Path(__file__).parent / "templates" / "review.html"
LARGEST = 64_000
"""Largest size of a posted judgement, in bytes."""


class SittingServer(LocalServer, ABC):
    """Server of one person's review session: serves the page and its state, and handles judgements.

    Args:
        port: port to listen on; 0 picks a free one.

    Raises:
        ResourceError: the port is in use.
    """

    def __init__(self, port: int = 0) -> None:
        self.token, self.turn = secrets.token_urlsafe(24), threading.Lock()
        super().__init__(port, _Handler, "The review page")

    @abstractmethod
    def page(self) -> tuple[Path, dict[str, Any]]:
        """Return the file of the page and its variables except the token."""

    @abstractmethod
    def state(self, skip: int) -> dict[str, Any]:
        """Return the state of the page: the progress, and the next waiting draft after ``skip`` skipped ones. After the
        last waiting draft, the first follows."""

    @abstractmethod
    def judge(self, sheet: dict[str, Any]) -> dict[str, Any]:
        """Record a judgement and return its result.

        Raises:
            NotWaiting: the draft was already judged.
            TaijiError: the judgement is incomplete.
            ValueError, KeyError, TypeError, OverflowError: the body is not a judgement.
        """


class ReviewServer(SittingServer):
    """Server of a review session over rationales.

    Args:
        session: an open :class:`taiji.reasoning.review_session.ReviewSession`.
        port: port to listen on; 0 picks a free one.

    Raises:
        ResourceError: the port is in use.
    """

    def __init__(self, session: ReviewSession, port: int = 0) -> None:
        self.session = session
        super().__init__(port)

    def page(self) -> tuple[Path, dict[str, Any]]:
        """See :class:`SittingServer`."""
        return PAGE, {
            "reviewer": self.session.person.name,
            "axes": [{"name": axis, "question": QUESTIONS[axis]} for axis in AXES],
            "bar": self.session.settings.bar,
            "strikes": self.session.settings.strikes,
        }

    def state(self, skip: int) -> dict[str, Any]:
        """See :class:`SittingServer`."""
        waiting = self.session.waiting()
        draft = waiting[skip % len(waiting)] if waiting else None
        shown = (
            None
            if draft is None
            else {
                "record": draft.record,
                "round": draft.round,
                "context": draft.context,
                "answer": draft.answer,
                "rationale": draft.rationale,
            }
        )
        return {"progress": self.session.progress(), "draft": shown}

    def judge(self, sheet: dict[str, Any]) -> dict[str, Any]:
        """See :class:`SittingServer`."""
        texts = str(sheet.get("feedback") or ""), str(sheet.get("rewrite") or "")
        outcome = self.session.submit(str(sheet["record"]), int(sheet["round"]), dict(sheet["scores"]), *texts)
        return {"outcome": outcome.status}


class _Handler(LocalHandler):
    server: SittingServer

    def do_GET(self) -> None:
        if not self._local():
            return
        try:
            address = urlsplit(self.path)
        except ValueError:
            self._json(400, {"error": "The address is invalid."})
            return
        if address.path == "/":
            self._send(200, self._page(), "text/html; charset=utf-8")
        elif address.path == "/state":
            skip = parse_qs(address.query).get("skip", ["0"])[0]
            with self.server.turn:
                self._json(200, self.server.state(int(skip) if skip.isdecimal() and len(skip) < 9 else 0))
        else:
            self._json(404, {"error": "There is no such page."})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and len(length) < 10 and int(length) <= LARGEST):
            self.close_connection = True
            self._json(413, {"error": f"A judgement must have a Content-Length of at most {LARGEST} bytes."})
            return
        body = self.rfile.read(int(length))
        if not self._local():
            return
        if self.path.partition("?")[0] != "/review":
            self._json(404, {"error": "There is no such page."})
        elif not secrets.compare_digest(self.headers.get("X-Review-Token", "").encode(), self.server.token.encode()):
            self._json(403, {"error": "The page is from an earlier session; reload it."})
        else:
            self._judge(body)

    def _judge(self, body: bytes) -> None:
        with self.server.turn:
            try:
                outcome = self.server.judge(dict(parsed(body)))
                self._json(200, {**outcome, **self.server.state(0)})
            except NotWaiting as error:
                self._json(409, {"error": str(error)})
            except TaijiError as error:
                self._json(422, {"error": str(error)})
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                self._json(400, {"error": f"The body is not a judgement: {error!r}"})

    def _local(self) -> bool:
        """Return True if the request names this machine as its host; otherwise reject the request."""
        if self.is_local:
            return True
        self._json(403, {"error": "This page can be opened only on this machine."})
        return False

    def _page(self) -> bytes:
        file, given = self.server.page()
        data = json.dumps({"token": self.server.token, **given}).replace("<", "\\u003c")
        return (
            file.read_text(encoding="utf-8").replace("{{NONCE}}", self.server.token).replace("{{DATA}}", data).encode()
        )

    def _json(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        nonce = f"'nonce-{self.server.token}'"
        policy = content_policy(style_src=nonce, script_src=nonce, connect_src="'self'", img_src="data:")
        self.send(status, body, kind, {"Cache-Control": "no-store", "Content-Security-Policy": policy})
