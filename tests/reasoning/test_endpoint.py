"""The endpoint teacher against a real server that misbehaves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.reasoning.misbehaving import FAULTS, KEY, Handler, Server

from taiji.core.errors import TaijiError
from taiji.reasoning.endpoint import EndpointTeacher
from taiji.reasoning.journal import Journal, Reply
from taiji.reasoning.settings import EndpointSettings, PromptSettings, TeacherSettings


def teacher(server_url, folder, **values) -> EndpointTeacher:
    defaults = {
        "url": server_url,
        "model": "m",
        "backoff_seconds": 0.01,
        "timeout_seconds": 2.0,
        "attempts": 12,
        "concurrency": 16,
        "price_in": 1.0,
        "price_out": 3.0,
    }
    return EndpointTeacher(
        EndpointSettings(**{**defaults, **values}), TeacherSettings(), PromptSettings(), None, folder
    )


def prompts(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"prompt {number}"}] for number in range(count)]


def check(server, replies, account, count, k) -> None:
    """Each request is answered exactly once, with its own answer, and both sides agree on the bill."""
    assert len(replies) == count
    assert all(len(row) == k for row in replies)
    flat = [reply for row in replies for reply in row]
    assert len({reply.key for reply in flat}) == count * k == len(server.billed)
    for number, row in enumerate(replies):
        for reply in row:
            assert reply.answer == f"Rationale for prompt {number} by {reply.key[:8]}."
            assert server.billed[reply.key] == (reply.prompt_tokens, reply.completion_tokens)
    tokens_in, tokens_out = (sum(bill[side] for bill in server.billed.values()) for side in (0, 1))
    assert (account.prompt_tokens, account.completion_tokens) == (tokens_in, tokens_out)
    assert account.cost == pytest.approx((tokens_in * 1.0 + tokens_out * 3.0) / 1e6)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TAIJI_TEACHER_KEY", KEY)


def test_a_thousand_rationales_through_every_fault(tmp_path, capfd):
    with Server() as server:
        asked = teacher(server.url, tmp_path)
        replies = asked.ask(prompts(334), 3, seed=0)
        check(server, replies, asked.account(), 334, 3)
        before = sum(server.asked.values())
        assert before > 1002  # the faults were real
        assert server.most_flying <= 16
        assert asked.ask(prompts(334), 3, seed=0) == replies
        assert sum(server.asked.values()) == before  # nothing is paid for twice
        assert set(server.headers_seen) == {f"Bearer {KEY}"}
    assert {"Hm, the chain."} == {r.chain for row in replies for r in row if r.chain}
    assert KEY not in (tmp_path / "teacher.jsonl").read_text() + "".join(capfd.readouterr())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone(tmp_path, fault):
    with Server(faults=(fault,), slow_share=1.0) as server:
        asked = teacher(server.url, tmp_path, concurrency=4)
        check(server, asked.ask(prompts(4), 2, seed=1), asked.account(), 4, 2)


@pytest.mark.parametrize("ids", [1, 20])
@pytest.mark.parametrize("texts", [1, 2])
def test_a_server_whose_ids_are_not_unique_answers_everything_within_the_budget(tmp_path, ids, texts):
    """Ollama draws ids from 999 numbers, and some proxies have one id; short answers are equal by chance."""
    draws, said = random.Random(0), ["Yes", "No"][:texts]
    with Server(
        faults=("none",),
        say=lambda asked, key: said[int(key, 16) % texts],
        identity=lambda key: f"chatcmpl-{draws.randrange(ids)}",
    ) as server:
        asked = teacher(server.url, tmp_path, timeout_seconds=60.0)  # a lost reply is billed, but not counted
        replies = [reply for row in asked.ask(prompts(60), 1, seed=0) for reply in row]
        assert [reply.answer for reply in replies] == [said[int(reply.key, 16) % texts] for reply in replies]
        requests, account = sum(server.asked.values()), asked.account()
        paid = sum(count * sum(server.billed[key]) for key, count in server.asked.items())
        assert account.prompt_tokens + account.completion_tokens == paid  # what was asked again is counted again
        assert account.attempts == requests <= (120 if texts == 1 else 90)


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.reasoning.test_endpoint import prompts, teacher
teacher({url!r}, {folder!r}).ask(prompts(334), 3, seed=0)
"""


def test_a_thousand_rationales_with_two_kills_lose_and_repeat_nothing(tmp_path):
    """Every fault, SIGKILL twice, a torn last line: in the end each prompt has its answers once and both sides agree on
    the bill."""
    journal = tmp_path / "teacher.jsonl"
    with Server() as server:
        script = SCRIPT.format(root=os.getcwd(), url=server.url, folder=str(tmp_path))
        paid: set[str] = set()
        before: dict[str, int] = {}
        for goal in (150, 600):
            server.hold_at = goal + 50  # so many are answered, however late the kill comes
            process = subprocess.Popen([sys.executable, "-c", script])
            while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < goal):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert all(
                server.asked[key] == before[key] for key in paid
            )  # the second start asked for nothing that the first had
            paid = {json.loads(line)["key"] for line in journal.read_bytes().split(b"\n")[:-1]}
            time.sleep(0.1)
            before = dict(server.asked)
            assert goal <= len(paid) < 1002
        server.hold_at = None
        journal.write_bytes(journal.read_bytes() + b'{"key": "cut off by the ki')
        asked = teacher(server.url, tmp_path)
        replies = asked.ask(prompts(334), 3, seed=0)
        check(server, replies, asked.account(), 334, 3)
        assert all(server.asked[key] == before[key] for key in paid)


def test_the_budget_stops_cleanly_and_resumes(tmp_path):
    with Server(faults=("none",)) as server:
        with pytest.raises(TaijiError, match="budget") as error:
            teacher(server.url, tmp_path, budget=0.02).ask(prompts(200), 1, seed=0)
        spent = teacher(server.url, tmp_path).account()
        assert 0 < spent.cost <= 0.02
        assert spent.replies == len(server.billed) < 200
        assert f"{spent.replies} replies" in str(error.value)
        check(
            server,
            teacher(server.url, tmp_path).ask(prompts(200), 1, seed=0),
            teacher(server.url, tmp_path).account(),
            200,
            1,
        )


def test_the_rate_limit(tmp_path):
    with Server(faults=("none",)) as server:
        start = time.monotonic()
        teacher(server.url, tmp_path, requests_per_minute=1200).ask(prompts(10), 1, seed=0)
        assert time.monotonic() - start >= 9 * 0.05


def test_a_rejection_stops_at_once_and_keeps_the_key_secret(tmp_path, monkeypatch):
    with Server(faults=("none",)) as server:
        monkeypatch.setattr(Handler, "misbehave", lambda self, *args: self.send(401, b'{"error": "bad key"}'))
        with pytest.raises(TaijiError, match="rejected") as error:
            teacher(server.url, tmp_path).ask(prompts(50), 1, seed=0)
        assert "401" in str(error.value)
        assert KEY not in str(error.value)
        assert sum(server.asked.values()) <= 16


def test_an_endpoint_that_keeps_failing(tmp_path):
    with pytest.raises(TaijiError, match="failed 3 times") as error:
        teacher("http://127.0.0.1:9/v1", tmp_path, attempts=3).ask(prompts(2), 1, seed=0)
    assert "ConnectError" in str(error.value)


def test_two_runs_may_not_share_a_journal(tmp_path):
    with (
        Journal(tmp_path / "j.jsonl"),
        pytest.raises(TaijiError, match="Another process"),
        Journal(tmp_path / "j.jsonl"),
    ):
        pass


def test_a_damaged_journal_is_named(tmp_path):
    (tmp_path / "teacher.jsonl").write_text('{"key": 1}\nrubbish\n')
    with pytest.raises(TaijiError, match="damaged") as error:
        teacher("http://x", tmp_path).account()
    assert "line 1" in str(error.value)


SPOILT = {
    "length": "cut",
    "open think": "cut",
    "hidden": "cut",
    "content_filter": "filtered",
    "filtered prompt": "filtered",
    "refusal": "refused",
    "tools": "tools",
    "paid silence": "empty",
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_reply_that_is_not_whole_is_told_apart_and_never_a_rationale(tmp_path, fault, dataset, examples, lm):
    with Server(spoilt=fault) as server:
        asked = teacher(server.url, tmp_path)
        asked.tokenizer = lm.tokenizer
        written = asked.write(dataset, examples, 2, seed=0)
        assert sum(server.asked.values()) == len(written)  # asked once, paid once
    assert written["ended"].unique().to_list() == [SPOILT[fault]]
    assert written["rationale"].unique().to_list() == [""]
    tokens = [asked.account().prompt_tokens, asked.account().completion_tokens]
    assert tokens == [sum(bill[side] for bill in server.billed.values()) for side in (0, 1)]


def test_a_cut_reply_is_asked_for_again_with_twice_the_tokens(tmp_path, dataset, examples, lm):
    with Server(spoilt="length", whole_from=256) as server:
        asked = teacher(server.url, tmp_path, max_tokens=64, ask_again=1)
        asked.tokenizer = lm.tokenizer
        first = asked.write(dataset, examples, 1, seed=0)
        assert first["ended"].to_list() == ["cut"] * len(examples)
        more = teacher(server.url, tmp_path, max_tokens=64, ask_again=2)
        more.tokenizer = lm.tokenizer
        second = more.write(dataset, examples, 1, seed=0)
        assert second["ended"].to_list() == ["whole"] * len(examples)
        assert second["rationale"].str.starts_with("Rationale for").all()
        room = {body["seed"]: body["max_tokens"] for body in server.bodies}  # a late attempt is repeated with its seed
        assert list(room.values()) == [64] * 6 + [128] * 6 + [256] * 6


@pytest.mark.parametrize("fault", ["parts", "null usage", "no usage", "few ids", "error object", "no choices"])
def test_other_servers_ways_are_understood(tmp_path, fault, caplog):
    with Server(spoilt=fault) as server:
        asked = teacher(server.url, tmp_path)
        replies = [reply for row in asked.ask(prompts(40), 2, seed=0) for reply in row]
    for number, reply in enumerate(replies):
        assert reply.answer == f"Rationale for prompt {number // 2} by {reply.key[:8]}."
        assert reply.ended == "whole"
    assert {reply.chain for reply in replies} == {"Hm, the chain." if fault == "parts" else ""}
    uncounted = asked.account().uncounted
    assert uncounted == (80 if "usage" in fault else 0)
    assert ("does not report how many tokens" in caplog.text) == bool(uncounted)
    if uncounted:  # the budget holds all the same: never less than the bill
        assert asked.account().prompt_tokens >= sum(bill[0] for bill in server.billed.values())
        assert asked.account().completion_tokens >= sum(bill[1] for bill in server.billed.values())


def test_a_lasting_error_object_stops_at_once(tmp_path):
    with Server(spoilt="lasting error") as server:
        with pytest.raises(TaijiError, match="rejected") as error:
            teacher(server.url, tmp_path, concurrency=1).ask(prompts(5), 1, seed=0)
        assert "no credit" in str(error.value) and sum(server.asked.values()) == 1


def test_a_server_that_knows_other_parameters(tmp_path):
    known = {"model", "messages", "max_completion_tokens", "reasoning_effort"}
    with Server(faults=("none",), known=known) as server:
        with pytest.raises(TaijiError, match="rejected") as error:
            teacher(server.url, tmp_path).ask(prompts(1), 1, seed=0)
        assert "max_tokens_name" in str(error.value) and "leave_out" in str(error.value)
        fitting = {
            "max_tokens_name": "max_completion_tokens",
            "leave_out": ("temperature", "seed"),
            "extra_body": {"reasoning_effort": "low"},
        }
        asked = teacher(server.url, tmp_path, **fitting)
        asked.ask(prompts(2), 1, seed=0)
        body = server.bodies[-1]
        assert body.keys() == known and body["max_completion_tokens"] == 512 and body["reasoning_effort"] == "low"
        assert asked.version != teacher(server.url, tmp_path).version


def test_extra_fields_leave_the_request_itself_alone():
    with pytest.raises(ValueError, match="must not set messages, model"):
        EndpointSettings(extra_body={"messages": [], "model": "x"})


def test_a_journal_of_before_did_not_say_how_replies_ended(tmp_path):
    asked = teacher("http://x", tmp_path, max_tokens=10)
    line = {"key": "k", "identity": "", "answer": "A.", "chain": "", "prompt_tokens": 1, "attempts": 1}
    for tokens, answer, ending in ((9, "A.", "whole"), (10, "A.", "cut"), (9, "", "cut")):
        assert asked.ending(Reply(**{**line, "completion_tokens": tokens, "answer": answer})) == ending
