"""Parser of replies from OpenAI-compatible servers, which classifies how each reply ended."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from taiji.core.errors import ResourceError
from taiji.core.foreign_json import parsed
from taiji.core.http_retry import TransientError, is_transient

Ending = Literal["whole", "cut", "filtered", "refused", "tools", "empty"]
"""Ending of a reply: complete, cut at a length limit, stopped by a content filter, refused, a tool call, or empty."""
ENDINGS: tuple[Ending, ...] = get_args(Ending)
_THINK = re.compile(r"^(?:\s*<think>)?(.*?)</think>(.*)$", re.DOTALL | re.IGNORECASE)
_OPEN = re.compile(r"^\s*<think>(.*)$", re.DOTALL | re.IGNORECASE)
_FINISHES: dict[str, Ending] = {
    "length": "cut",
    "max_tokens": "cut",
    "max_output_tokens": "cut",
    "model_length": "cut",
    "incomplete": "cut",
    "content_filter": "filtered",
    "safety": "filtered",
    "recitation": "filtered",
    "blocklist": "filtered",
    "prohibited_content": "filtered",
    "refusal": "refused",
    "tool_calls": "tools",
    "tool_use": "tools",
    "function_call": "tools",
}
"""Finish reasons by which servers mark incomplete answers. Any other reason, or a missing one, means a complete answer,
except `error` and `abort`, which mean a failure."""
_FILTERED = ("content_filter", "ResponsibleAIPolicyViolation", "data_inspection_failed")
"""Error codes of a request rejected by a content filter."""
_CHAIN_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_CHAIN_PARTS = ("thinking", "reasoning", "reasoning_text", "reasoning.text", "reasoning.summary", "summary_text")


@dataclass(frozen=True)
class ChatReply:
    """One chat completion.

    Attributes:
        identity: id of the completion, as given by the server.
        answer: visible text.
        chain: chain of thought of a reasoning model; empty if there is none.
        ended: how the reply ended.
        prompt_tokens: number of prompt tokens that the server reports; None if it reports none.
        completion_tokens: number of completion tokens that the server reports; None if it reports none.
    """

    identity: str
    answer: str
    chain: str
    ended: Ending
    prompt_tokens: int | None
    completion_tokens: int | None


def read_reply(text: str) -> ChatReply:
    """Parse the body of a successful response.

    Text after the first JSON value, such as a second copy of the completion, is ignored.

    Raises:
        TransientError: the body is truncated, holds no chat completion, or holds an error that a retry may resolve.
        ResourceError: the body holds an error that a retry does not resolve.
    """
    try:
        body, _ = json.JSONDecoder().raw_decode(text.lstrip())
        _raise_error(body)
        if not body.get("choices"):
            raise TransientError(f"a response without choices: {text[:80]!r}")
        choice = body["choices"][0]
        _raise_error(choice)
        message = choice["message"]
        answer, chain, refused = _parts(message.get("content"))
        chain = next((said for name in _CHAIN_FIELDS if (said := _text(message.get(name)))), "") or chain
        refused = refused or bool(message.get("refusal"))
        tools = bool(message.get("tool_calls") or message.get("function_call"))
        usage = body.get("usage") or {}
        tokens = _count(usage, "prompt_tokens", "input_tokens"), _count(usage, "completion_tokens", "output_tokens")
        finish = str(choice.get("finish_reason") or choice.get("stop_reason") or "").lower()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise TransientError(f"not a chat completion: {text[:80]!r}") from error
    if finish in ("error", "abort"):
        raise TransientError(f"the server gave up: {finish}")
    ended = _FINISHES.get(finish, "whole")
    if not chain:
        closed, opened = _THINK.match(answer), _OPEN.match(answer)
        if closed:
            chain, answer = closed.groups()
        elif opened:  # the chain of thought is not closed: the reply was cut, whatever finish reason the server gives
            chain, answer = opened.group(1), ""
            ended = "cut" if ended == "whole" else ended
    answer, chain = answer.strip(), chain.strip()
    if ended == "whole":
        ended = "refused" if refused else "tools" if tools else "whole" if answer or chain else "empty"
    if ended == "empty" and not tokens[1]:
        raise TransientError("an empty response")
    return ChatReply(str(body.get("id") or ""), answer, chain, ended, *tokens)


def was_filtered(text: str) -> bool:
    """Return True if the body of a rejected request says that a content filter rejected the prompt."""
    try:
        error = parsed(text)["error"]
        codes = (error.get("code"), error.get("type"), (error.get("innererror") or {}).get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return any(code in _FILTERED for code in codes)


def _raise_error(part: dict[str, Any]) -> None:
    """Raise the error that this part of a response contains, if any. Some gateways send errors with status 200."""
    error = part.get("error")
    if not error:
        return
    code = error.get("code") if isinstance(error, dict) else None
    said = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    if str(code).isdigit() and not is_transient(int(str(code))):
        raise ResourceError(
            "The endpoint rejected a request.",
            where="reasoning.endpoint",
            found=f"error {code}: {said[:200]}",
            fix="check the model's name, the key and the parameters",
        )
    raise TransientError(f"an error in the response: {said[:80]}")


def _parts(content: object) -> tuple[str, str, bool]:
    """Split message content (a text or a list of parts) into visible text, chain of thought and a refusal flag."""
    if not isinstance(content, list):
        return _text(content), "", False
    answer, chain, refused = [], [], False
    for part in content:
        kind = str(part.get("type", "text")) if isinstance(part, dict) else "text"
        if kind in _CHAIN_PARTS:
            chain.append(_text(part))
        elif kind == "refusal":
            refused = True
        elif kind in ("text", "output_text"):
            answer.append(_text(part))
    return "".join(answer), "\n".join(chain), refused


def _text(value: object) -> str:
    """Return the text of a string, a part, or a list of these."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part) for part in value)
    if isinstance(value, dict):
        return next(
            (said for name in ("text", "thinking", "reasoning", "summary") if (said := _text(value.get(name)))), ""
        )
    return ""


def _count(usage: dict[str, Any], *names: str) -> int | None:
    """Return the first valid count among the named fields."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
            return int(value)
    return None
