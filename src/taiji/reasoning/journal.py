"""Append-only journal of paid answers. An answer in it is never requested again.

The file has one JSON object per line, flushed to disk before the answer counts as received. If a run is killed while it
writes, the truncated line is ignored, and removed when the journal is next opened.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from taiji.core.artifacts import make_folder
from taiji.core.errors import ArtifactError, ResourceError
from taiji.reasoning.chat_reply import Ending


@dataclass(frozen=True)
class Reply:
    """A received answer.

    Attributes:
        key: hash of everything on which the request depends.
        identity: id of the completion, as given by the server.
        answer: visible text.
        chain: chain of thought of a reasoning model; empty if there is none.
        prompt_tokens: number of prompt tokens.
        completion_tokens: number of completion tokens.
        attempts: number of requests that were sent for this answer.
        ended: how the reply ended, see :data:`taiji.reasoning.chat_reply.Ending`; empty in lines of earlier versions.
        counted: True if the server reported the token counts; otherwise they are upper bounds.
    """

    key: str
    identity: str
    answer: str
    chain: str
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    ended: Ending | Literal[""] = ""
    counted: bool = True


@dataclass(frozen=True)
class Account:
    """Total cost of the answers in a journal.

    Attributes:
        replies: number of received answers.
        attempts: number of requests sent for them.
        prompt_tokens: billed prompt tokens.
        completion_tokens: billed completion tokens.
        cost: cost at the configured prices.
        uncounted: number of replies without token counts from the server, for which upper bounds are used.
    """

    replies: int
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    uncounted: int = 0


class Journal:
    """Replies in one file, by key. Use the journal as a context manager; only one process at a time may open it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.replies: dict[str, Reply] = {}
        self._delivered: dict[tuple[str, str, str], str] = {}
        self._texts: dict[str, tuple[str, str]] = {}
        self._ids_repeat = False

    def __enter__(self) -> Journal:
        try:
            make_folder(self.path.parent)
            self._stream = self.path.open("a+b")
        except OSError as error:
            raise ResourceError(
                "The journal of the endpoint's replies cannot be opened.",
                where=str(self.path),
                found=str(error),
                fix="make the file and its folder readable and writable for this user",
            ) from error
        try:
            self._lock()
            self._read()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, reply: Reply) -> None:
        """Store a reply. When this method returns, the reply is on disk."""
        line = json.dumps(asdict(reply), ensure_ascii=False) + "\n"
        try:
            self._stream.write(line.encode())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise ResourceError(
                "A reply that was paid for could not be saved.",
                where=str(self.path),
                found=str(error),
                fix="free some space and start the same command again (`taiji run` with --resume)",
            ) from error
        self._remember(reply)

    def account(self, price_in: float, price_out: float) -> Account:
        """Return the total cost of all replies; prices are per million tokens."""
        replies = self.replies.values()
        tokens_in, tokens_out = sum(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies)
        cost = (tokens_in * price_in + tokens_out * price_out) / 1e6
        uncounted = sum(not r.counted for r in replies)
        return Account(len(replies), sum(r.attempts for r in replies), tokens_in, tokens_out, cost, uncounted)

    def delivered_before(self, reply: Reply) -> bool:
        """Return True if the server seems to have sent this reply before, to a different request.

        The two replies must have the same id and the same text. Always False once the server has given one id to
        different texts: its ids are then not unique, and two short texts may be equal by chance.
        """
        first = self._delivered.get((reply.identity, reply.answer, reply.chain), reply.key)
        return bool(reply.identity) and not self._ids_repeat and first != reply.key

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # this system has no such file locks
            return
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResourceError(
                "Another process is already requesting the same texts from the same endpoint.",
                where=str(self.path),
                fix="wait for it, or stop it",
            ) from error

    def _read(self) -> None:
        self._stream.seek(0)
        whole = 0
        for number, line in enumerate(self._stream, start=1):
            if not line.endswith(b"\n"):
                break  # truncated when the process was killed: this answer was never counted
            try:
                self._remember(Reply(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ArtifactError(
                    "The journal of the endpoint's replies is damaged.",
                    where=f"{self.path}, line {number}",
                    expected="one reply per line, as JSON",
                    found=str(error),
                    fix="remove this line: its reply is then requested, and paid for, again",
                ) from error
            whole += len(line)
        self._stream.truncate(whole)
        self._stream.seek(0, os.SEEK_END)

    def _remember(self, reply: Reply) -> None:
        self.replies[reply.key] = reply
        if reply.identity:
            text = reply.answer, reply.chain
            self._ids_repeat |= self._texts.setdefault(reply.identity, text) != text
            self._delivered[reply.identity, reply.answer, reply.chain] = reply.key
