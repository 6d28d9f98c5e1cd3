"""A real HTTP server that speaks the chat-completions protocol and misbehaves on purpose, deterministically by
request."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-very-secret-key"
FAULTS = ("none", "429", "500", "truncated", "drop", "twice", "other", "field", "think", "slow")


class Server(ThreadingHTTPServer):
    """Answers each idempotency key once and bills it once; the first attempts of most keys go wrong.

    Attributes:
        billed: tokens (prompt, completion) by idempotency key.
        asked: requests by idempotency key.
        bodies: requests as they came.
        spoilt: a way in which every reply is other than it should be.
        whole_from: longest reply from which on none is spoilt.
        known: parameters that a request may have; others are rejected.
        say: from the last message and the key to the answer's text.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        faults: tuple[str, ...] = FAULTS,
        slow_seconds: float = 2.6,
        slow_share: float = 0.01,
        spoilt: str = "",
        whole_from: int = 1 << 30,
        known: set[str] | None = None,
        say: Callable[[str, str], str] = lambda asked, key: f"Rationale for {asked} by {key[:8]}.",
        identity: Callable[[str], str] = lambda key: f"chatcmpl-{key[:16]}",
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spoilt, self.whole_from, self.known, self.say = spoilt, whole_from, known, say
        self.identity = identity
        self.bodies: list[dict] = []
        if spoilt:
            faults = ("none",)
        self.faults, self.slow_seconds, self.slow_share = faults, slow_seconds, slow_share
        self.billed: dict[str, tuple[int, int]] = {}
        self.asked: Counter[str] = Counter()
        self.headers_seen: list[str] = []
        self.flying = self.most_flying = 0
        self.hold_at: int | None = None  # requests with a new key wait while so many are billed
        self.ended = threading.Event()
        self.delivered: list[tuple[float, dict]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are part of the play."""


def spoil(answer: dict, how: str, number: int, attempt: int) -> None:
    """Change a good reply in place."""
    choice, message = answer["choices"][0], answer["choices"][0]["message"]
    if how == "length":  # a reasoning model whose chain took all the room
        choice["finish_reason"] = "length"
        message.update(content=None, reasoning_content="The household buys milk. So it may")
    elif how == "open think":
        message["content"] = "<think>The household buys milk. So it may"
    elif how == "hidden":
        choice["finish_reason"] = "length"
        message["content"] = ""
    elif how == "content_filter":
        choice["finish_reason"] = "content_filter"
        message["content"] = "The household"
    elif how == "refusal":
        message.update(content=None, refusal="I cannot help with that.")
    elif how == "tools":
        choice["finish_reason"] = "tool_calls"
        message.update(content=None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "search"}}])
    elif how == "paid silence":
        message["content"] = ""
    elif how == "parts":
        message["content"] = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm, the chain."}]},
            {"type": "text", "text": message["content"]},
        ]
    elif how == "null usage":
        answer["usage"] = {"prompt_tokens": None, "completion_tokens": None}
    elif how == "no usage":
        del answer["usage"]
    elif how == "few ids":
        answer["id"] = f"chatcmpl-{number % 5}"
    elif how == "no choices" and attempt == 1:
        answer.update(choices=[])
    elif how == "error object" and attempt == 1:
        answer.clear()
        answer["error"] = {"code": 502, "message": "provider down"}
    elif how == "lasting error":
        answer.clear()
        answer["error"] = {"code": 402, "message": "no credit"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    flies = False
    server: Server

    def log_message(self, *args) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        with server.lock:
            server.asked[key] += 1
            attempt = server.asked[key]
            server.bodies.append(body)
            server.headers_seen.append(self.headers.get("Authorization", ""))
            server.flying += 1
            server.most_flying = max(server.most_flying, server.flying)
        self.flies = True
        try:
            while key not in server.billed and server.hold_at is not None and len(server.billed) >= server.hold_at:
                if server.ended.wait(0.01):
                    return
            self.misbehave(body, key, attempt)
        finally:
            self.land()

    def land(self) -> None:
        """Count the request out: before its answer is sent, for its asker may send the next one at once."""
        with self.server.lock:
            self.server.flying -= self.flies
        self.flies = False

    def misbehave(self, body: dict, key: str, attempt: int) -> None:
        server = self.server
        draw = int(hashlib.sha256(key.encode()).hexdigest(), 16)
        fault = server.faults[draw % len(server.faults)] if attempt == 1 else "none"
        if fault == "slow" and (draw // 97) % 1000 >= 1000 * server.slow_share:
            fault = "none"
        if fault == "429":
            return self.send(429, b"{}", {"Retry-After": "0"})
        if fault == "500":
            return self.send(500, b"<html>oops</html>")
        unknown = body.keys() - server.known if server.known is not None else set()
        if unknown:
            return self.send(400, json.dumps({"error": {"message": f"unknown: {sorted(unknown)}"}}).encode())
        answer = self.completion(body, key, fault)
        if server.spoilt and body.get("max_tokens", 0) < server.whole_from:
            spoil(answer, server.spoilt, len(server.asked), attempt)
        if server.spoilt == "filtered prompt":
            server.billed[key] = (0, 0)
            return self.send(400, b'{"error": {"code": "content_filter", "message": "The prompt was filtered."}}')
        if "usage" not in answer:
            server.billed.setdefault(key, (0, 0))
            return self.send(200, json.dumps(answer).encode())
        with server.lock:
            server.billed[key] = tuple(count or 0 for count in answer["usage"].values())
        raw = json.dumps(answer).encode()
        if fault == "slow":
            self.land()
            time.sleep(server.slow_seconds)
        if fault == "truncated":
            return self.send(200, raw[: len(raw) // 2])
        if fault == "drop":
            self.land()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[:10])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return None
        if fault == "twice":
            raw += raw
        if fault == "other":
            # The answer to an earlier request, which its asker has surely received, is delivered a second time.
            old = [earlier for at, earlier in server.delivered if at < time.monotonic() - 1.0]
            raw = json.dumps(old[0]).encode() if old else raw
        self.send(200, raw)
        with server.lock:
            if fault == "none":
                server.delivered.append((time.monotonic(), answer))
        return None

    def completion(self, body: dict, key: str, fault: str) -> dict:
        text = self.server.say(body["messages"][-1]["content"], key)
        message = {"role": "assistant", "content": text}
        if fault == "field":
            message["reasoning_content"] = "Hm, the chain."
        if fault == "think":
            message["content"] = f"<think>Hm, the chain.</think>\n\n{text}"
        prompt = sum(len(m["content"]) for m in body["messages"])
        return {
            "id": self.server.identity(key),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": len(text)},
        }

    def send(self, status: int, raw: bytes, headers: dict[str, str] | None = None) -> None:
        self.land()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(raw)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)
