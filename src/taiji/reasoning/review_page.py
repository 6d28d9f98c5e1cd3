"""The review as a web page of this machine: one draft at a time, five scores, by keyboard; nothing is loaded from anywhere.

It binds to 127.0.0.1, answers only requests that name this machine as their host (a foreign page that points its own
name here gets nothing), and takes a judgement only with the token that stands in the page (no foreign page can post one).
"""

from __future__ import annotations

import json
import secrets
import threading
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
"""Bytes of a posted judgement."""


class ReviewServer(LocalServer):
    """Server of one sitting.

    Args:
        session: an open :class:`taiji.reasoning.review_session.ReviewSession`.
        port: 0 takes a free one.

    Raises:
        ResourceError: the port is taken.
    """

    def __init__(self, session: ReviewSession, port: int = 0) -> None:
        self.session, self.token, self.turn = session, secrets.token_urlsafe(24), threading.Lock()
        super().__init__(port, _Handler, "The review page")

    def state(self, skip: int) -> dict[str, Any]:
        """Return what the page shows: progress, and the draft ``skip`` places into what waits (round and round)."""
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


class _Handler(LocalHandler):
    server: ReviewServer

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if not self._local():
            return
        if address.path == "/":
            self._send(200, self._page(), "text/html; charset=utf-8")
        elif address.path == "/state":
            skip = parse_qs(address.query).get("skip", ["0"])[0]
            with self.server.turn:
                self._json(200, self.server.state(int(skip) if skip.isdecimal() and len(skip) < 9 else 0))
        else:
            self._json(404, {"error": "There is nothing here."})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and len(length) < 10 and int(length) <= LARGEST):
            self.close_connection = True
            self._json(413, {"error": f"A judgement has at most {LARGEST} bytes."})
            return
        body = self.rfile.read(int(length))
        if not self._local():
            return
        if urlsplit(self.path).path != "/review":
            self._json(404, {"error": "There is nothing here."})
        elif not secrets.compare_digest(self.headers.get("X-Review-Token", "").encode(), self.server.token.encode()):
            self._json(403, {"error": "The page is from an earlier sitting; load it again."})
        else:
            self._judge(body)

    def _judge(self, body: bytes) -> None:
        try:
            sheet = parsed(body)
            record, number, scores = str(sheet["record"]), int(sheet["round"]), dict(sheet["scores"])
            texts = str(sheet.get("feedback") or ""), str(sheet.get("rewrite") or "")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            self._json(400, {"error": f"That is no judgement: {error!r}"})
            return
        with self.server.turn:
            try:
                outcome = self.server.session.submit(record, number, scores, *texts)
                self._json(200, {"outcome": outcome.status, **self.server.state(0)})
            except NotWaiting as error:
                self._json(409, {"error": str(error)})
            except TaijiError as error:
                self._json(422, {"error": str(error)})

    def _local(self) -> bool:
        """Return whether the request names this machine; answer it otherwise."""
        if self.is_local:
            return True
        self._json(403, {"error": "This page is for this machine only."})
        return False

    def _page(self) -> bytes:
        session = self.server.session
        given = {
            "token": self.server.token,
            "reviewer": session.person.name,
            "axes": [{"name": axis, "question": QUESTIONS[axis]} for axis in AXES],
            "bar": session.settings.bar,
            "strikes": session.settings.strikes,
        }
        data = json.dumps(given).replace("<", "\\u003c")
        return (
            PAGE.read_text(encoding="utf-8").replace("{{NONCE}}", self.server.token).replace("{{DATA}}", data).encode()
        )

    def _json(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        nonce = f"'nonce-{self.server.token}'"
        policy = content_policy(style_src=nonce, script_src=nonce, connect_src="'self'")
        self.send(status, body, kind, {"Cache-Control": "no-store", "Content-Security-Policy": policy})
