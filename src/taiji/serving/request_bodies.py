"""Parse and check JSON bodies, user ids and idempotency keys of requests.

The rejection of a body names the positions of the faults.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from taiji.serving import schemas as s
from taiji.serving.gate import Rejected
from taiji.serving.types import Event, EventBatch

M = TypeVar("M", bound=BaseModel)


async def json_body(request: Request) -> bytes:
    """Return the body of a request, which must be declared as JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Rejected(415, "media_type", "The body must be application/json.")
    return await request.body()


def parsed(model: type[M], body: bytes) -> M:
    """Parse a JSON body; a rejection names the first twenty faulty places."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        if problems[0]["type"] == "json_invalid":
            raise Rejected(400, "malformed", "The body is not JSON in UTF-8, or nests too deeply.") from None
        places = [
            "/"
            + "/".join(
                str(part)
                for part in problem["loc"]
                if isinstance(part, int) or (part.isidentifier() and len(part) < 40)
            )
            for problem in problems[:20]
        ]
        raise Rejected(
            422, "invalid", f"The body does not match the schema: {problems[0]['msg']}.", places=places
        ) from None


def user_id(text: str) -> str:
    """Return a user id after checking its length and its characters."""
    if not (0 < len(text) <= 256) or any(character < " " or character == "\x7f" for character in text):
        raise Rejected(422, "invalid", "A user id has 1 to 256 characters, none of them control characters.")
    return text


def idempotency_key(request: Request) -> str:
    """Return the idempotency key of a batch of events from the request's header."""
    key = request.headers.get("idempotency-key", "")
    if not re.fullmatch(r"[!-~]{1,200}", key):
        raise Rejected(
            422,
            "idempotency_key",
            "The header Idempotency-Key is needed: 1 to 200 printable ASCII characters without spaces, new for each batch.",
        )
    return key


def joined(rows: Sequence[bytes | None]) -> bytes:
    """Return the body of a response with rows; missing rows are ``null``."""
    return b'{"rows":[' + b",".join(row or b"null" for row in rows) + b"]}"


def event_batch(
    digest: Callable[[bytes], str], sent: str, source: str, now: int, latest: int, body: bytes
) -> EventBatch:
    """Parse a batch of events.

    An event's id consists of its time of arrival, the batch's key, and the event's position in the batch. Ids therefore
    sort in order of arrival; stores sort events of equal times by id. The prefix ``t`` makes these ids sort after ids
    of version 0.2, which begin with a hexadecimal digit.

    Args:
        digest: keyed digest function of the store.
        sent: idempotency key.
        source: name of the API key.
        now: time of arrival, in microseconds since the epoch.
        latest: latest time that an event may have, in microseconds since the epoch.
        body: JSON body.

    Raises:
        Rejected: the body does not match the schema, or an event is later than ``latest``.
    """
    key = _short_hash(source.encode() + b"\0" + sent.encode())
    taken = tuple(
        Event(f"t{now:016x}-{key}-{place:04d}", e.user_id, e.item_id, e.time(), e.click, e.conversion, e.price)
        for place, e in enumerate(parsed(s.EventsIn, body).events)
    )
    if late := [f"/events/{place}/timestamp" for place, event in enumerate(taken) if event.time > latest]:
        raise Rejected(422, "future", "A timestamp is too far in the future.", places=late[:20])
    return EventBatch(key, digest(body)[:32], taken, source, (_short_hash(sent.encode()), _short_hash(body)))


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
