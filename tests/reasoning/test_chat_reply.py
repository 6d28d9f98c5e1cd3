"""Replies of servers that follow the protocol each in its own way."""

from __future__ import annotations

import json

import pytest

from taiji.core.errors import TaijiError
from taiji.core.http_retry import TransientError
from taiji.reasoning.chat_reply import read_reply, was_filtered


def read(message, finish="stop", **body):
    return read_reply(json.dumps({"choices": [{"message": message, "finish_reason": finish}], **body}))


@pytest.mark.parametrize(
    ("message", "answer", "chain"),
    [
        ({"content": "A"}, "A", ""),
        ({"content": "<think>c</think>A"}, "A", "c"),
        ({"content": "c</think>A"}, "A", "c"),
        ({"content": "<think>never closed"}, "", "never closed"),
        ({"content": None, "reasoning_content": "c"}, "", "c"),
        ({"content": "A", "reasoning": "c"}, "A", "c"),
        ({"content": "A", "reasoning": "c", "reasoning_details": [{"type": "reasoning.text", "text": "c"}]}, "A", "c"),
        ({"content": "A", "reasoning_details": [{"type": "reasoning.text", "text": "c"}]}, "A", "c"),
        ({"content": [{"type": "thinking", "thinking": "c"}, {"type": "text", "text": "A"}]}, "A", "c"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "c"}]}, {"text": "A"}]}, "A", "c"),
        ({"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, "AB", ""),
        ({"content": ["A", "B"]}, "AB", ""),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "output_text", "text": "A"}]},
            "A",
            "",
        ),
    ],
)
def test_where_answer_and_chain_may_stand(message, answer, chain):
    reply = read_reply(json.dumps({"choices": [{"message": message}]}))
    assert (reply.answer, reply.chain) == (answer, chain)


@pytest.mark.parametrize(
    ("message", "finish", "ended"),
    [
        ({"content": "A"}, "stop", "whole"),
        ({"content": "A"}, None, "whole"),
        ({"content": "A"}, "eos_token", "whole"),
        ({"content": "A"}, "length", "cut"),
        ({"content": "A"}, "MAX_TOKENS", "cut"),
        ({"content": None, "reasoning_content": "half a"}, "length", "cut"),
        ({"content": ""}, "length", "cut"),
        ({"content": None}, "length", "cut"),
        ({"content": "<think>half a"}, "stop", "cut"),
        ({"content": "A"}, "content_filter", "filtered"),
        ({"content": None}, "content_filter", "filtered"),
        ({"content": None, "refusal": "I will not."}, "stop", "refused"),
        ({"content": [{"type": "refusal", "refusal": "I will not."}]}, "stop", "refused"),
        ({"content": None, "tool_calls": [{"function": {"name": "f"}}]}, "tool_calls", "tools"),
        ({"content": "Let me look.", "tool_calls": [{"function": {"name": "f"}}]}, "stop", "tools"),
        ({"content": "A", "tool_calls": []}, "stop", "whole"),
    ],
)
def test_how_a_reply_ended(message, finish, ended):
    assert read(message, finish).ended == ended


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"prompt_tokens": None, "completion_tokens": 4}, (None, 4)),
        ({"prompt_tokens": 3.0, "completion_tokens": 4.0}, (3, 4)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ({"prompt_tokens": "3"}, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        (None, (None, None)),
    ],
)
def test_counts_that_are_missing_are_no_zeros(usage, counts):
    reply = read({"content": "A"}, usage=usage)
    assert (reply.prompt_tokens, reply.completion_tokens) == counts


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "A"}, "finish_reason": "error"}]},
        {"choices": [{"message": {"content": "A"}, "error": {"code": 502, "message": "upstream"}}]},
        {"error": {"code": 429, "message": "slow down"}},
        {"error": {"code": "overloaded", "message": "slow down"}},
        {"error": "slow down"},
    ],
    ids=str,
)
def test_what_another_attempt_may_mend(body):
    with pytest.raises(TransientError):
        read_reply(json.dumps(body))


def test_what_it_does_not():
    with pytest.raises(TaijiError, match="rejected") as error:
        read_reply(json.dumps({"error": {"code": 402, "message": "no credit"}}))
    assert "no credit" in str(error.value)
    assert was_filtered('{"error": {"code": "content_filter", "message": "x"}}')
    assert not was_filtered('{"error": {"code": "bad"}}') and not was_filtered("<html>") and not was_filtered("[]")
