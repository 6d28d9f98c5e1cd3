"""Client of an OpenAI-compatible chat endpoint, and a teacher that uses it.

Each text (such as a rationale or a text about an item) is one request. The number of requests in flight is bounded,
their rate can be limited, and failures are retried with exponential backoff and full jitter. Every answer is written
to an append-only journal before it is counted, so an interrupted run resumes where it stopped and does not pay for a
received answer twice. Each request carries an ``Idempotency-Key`` that stays the same across its retries. If an
answer is lost in transit, a server that honours the key bills it only once. Other servers may bill it again, which a
client cannot detect.

If a reply has the id and the text of the reply to another request, it was probably delivered to the wrong request. The
request is then sent once more. If the server sends the same text again, the reply is accepted, and the tokens of both
replies are counted.

An incomplete reply (see :data:`taiji.reasoning.chat_reply.Ending`) is kept in the journal and its cost is counted, but
its text is never used. The setting ``ask_again`` limits how often it is requested again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.artifacts import value_hash
from taiji.core.errors import ConfigError, ResourceError, TaijiError
from taiji.core.event_loop import run_coroutine
from taiji.core.http_retry import Backoff, TransientError, is_transient, retry_after
from taiji.core.optional import needs
from taiji.core.progress import progress
from taiji.data.dataset import Dataset
from taiji.language.chat import Message
from taiji.reasoning.chat_reply import Ending, read_reply, was_filtered
from taiji.reasoning.journal import Account, Journal, Reply
from taiji.reasoning.settings import EndpointSettings, PromptSettings, TeacherSettings
from taiji.reasoning.teachers import rationale_frame, teacher_requests, tidy

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    key: str
    body: dict[str, Any]
    most_tokens: int
    """Largest number of tokens in the reply."""


class EndpointClient:
    """Client of a chat endpoint, with budget, rate limit, retries and journal; see the module docstring.

    Args:
        endpoint: address, limits and prices.
        temperature: sampling temperature.
        folder: folder of the journal.
    """

    def __init__(self, endpoint: EndpointSettings, temperature: float, folder: str | Path) -> None:
        self.endpoint, self.temperature, self.folder = endpoint, temperature, Path(folder)
        self._warned = False
        self.name = f"endpoint:{endpoint.model}"
        self.version = value_hash([self._body([], endpoint.max_tokens), endpoint.take, endpoint.ask_again])[:16]

    def ending(self, reply: Reply) -> Ending:
        """Return how a reply ended. A reply from an older journal, which does not record this, counts as cut if it is
        empty or has the maximum length, otherwise as complete."""
        if reply.ended:
            return reply.ended
        full = reply.counted and reply.completion_tokens >= self.endpoint.max_tokens
        return "cut" if full or not reply.answer else "whole"

    def account(self) -> Account:
        """Return the cost of the answers in the journal so far."""
        with Journal(self._journal_path) as journal:
            return journal.account(self.endpoint.price_in, self.endpoint.price_out)

    def ask(self, prompts: Sequence[list[Message]], k: int, seed: int) -> list[list[Reply]]:
        """Return k replies to each list of messages. Replies that are already in the journal are read from it.

        If a reply is incomplete, a new one is requested, up to ``reasoning.endpoint.ask_again`` times.
        """
        wanted = [(messages, sample) for messages in prompts for sample in range(k)]
        requests = [self._request(messages, sample, seed) for messages, sample in wanted]
        with Journal(self._journal_path) as journal:
            for round_ in range(self.endpoint.ask_again + 1):
                missing = {r.key: r for r in requests if r.key not in journal.replies}
                if missing:
                    run_coroutine(_Session(self.endpoint, journal, len(wanted)).run(list(missing.values())))
                if round_ < self.endpoint.ask_again:
                    requests = [
                        self._again(request, self.ending(journal.replies[request.key]), messages, sample, seed, round_)
                        for request, (messages, sample) in zip(requests, wanted)
                    ]
            replies = [journal.replies[request.key] for request in requests]
        self._tell(replies)
        return [replies[start : start + k] for start in range(0, len(replies), k)]

    def _again(
        self, request: _Request, ending: Ending, messages: list[Message], sample: int, seed: int, round_: int
    ) -> _Request:
        """Return the request for the next round, given how the last reply ended: the same request after a complete
        reply, otherwise a new one. After a cut reply, the new token limit is twice the old one."""
        if ending == "whole":
            return request
        most = request.most_tokens * (2 if ending == "cut" else 1)
        return self._request(messages, sample, seed, most, round_ + 1)

    def _tell(self, replies: Sequence[Reply]) -> None:
        """Warn once if prices are set but the server reports no token counts: the cost is then only an upper bound."""
        if self._warned or all(reply.counted for reply in replies):
            return
        self._warned = True
        if self.endpoint.price_in or self.endpoint.price_out:
            logger.warning(
                "The endpoint does not report how many tokens its replies took; the upper bound is counted instead."
            )

    @property
    def _journal_path(self) -> Path:
        return self.folder / "teacher.jsonl"

    def _request(
        self, messages: list[Message], sample: int, seed: int, most_tokens: int = 0, again: int = 0
    ) -> _Request:
        most_tokens = most_tokens or self.endpoint.max_tokens
        body = self._body(messages, most_tokens)
        key = value_hash([body, sample, seed, *([again] if again else [])])
        own_seed = {} if "seed" in self.endpoint.leave_out else {"seed": int(key[:8], 16) >> 1}
        return _Request(key, {**body, **own_seed}, most_tokens)

    def _body(self, messages: list[Message], most_tokens: int) -> dict[str, Any]:
        """Return the body of a request without the seed."""
        sampling = {self.endpoint.max_tokens_name: most_tokens, "temperature": self.temperature}
        unknown = [self.endpoint.max_tokens_name if n == "max_tokens" else n for n in self.endpoint.leave_out]
        known = {name: value for name, value in sampling.items() if name not in unknown}
        return {"model": self.endpoint.model, "messages": messages, **known, **self.endpoint.extra_body}

    def text(self, reply: Reply) -> str:
        """Return the part of a reply that the setting ``take`` names (answer or chain of thought), or the other part if
        that part is empty."""
        one, other = (reply.answer, reply.chain) if self.endpoint.take == "answer" else (reply.chain, reply.answer)
        return one if one.strip() else other


class EndpointTeacher(EndpointClient):
    """Teacher that uses an :class:`EndpointClient`.

    Args:
        endpoint, folder: see :class:`EndpointClient`.
        settings: settings of the teacher.
        prompts: content of the prompts.
        tokenizer: tokenizer of the student, which counts prompt tokens against ``token_budget``. It decides which
            interactions fit, and the teacher sees the same interactions as the student.
    """

    def __init__(
        self,
        endpoint: EndpointSettings,
        settings: TeacherSettings,
        prompts: PromptSettings,
        tokenizer: PreTrainedTokenizerBase,
        folder: str | Path,
    ) -> None:
        super().__init__(endpoint, settings.temperature, folder)
        self.settings, self.prompts, self.tokenizer = settings, prompts, tokenizer

    def write(self, dataset: Dataset, examples: pl.DataFrame, k: int, seed: int) -> pl.DataFrame:
        """See :class:`taiji.reasoning.teachers.Teacher`.

        Raises:
            TaijiError: the budget is reached, the endpoint rejects a request (a wrong key, an unknown model) or keeps
                failing. Received replies stay in the journal, and the same call resumes from there.
        """
        prompts = [
            messages for messages, _ in teacher_requests(dataset, examples, self.settings, self.prompts, self.tokenizer)
        ]
        replies = self.ask(prompts, k, seed)
        endings = [[self.ending(reply) for reply in row] for row in replies]
        texts = [
            [tidy(self.text(reply)) if ending == "whole" else "" for reply, ending in zip(row, ends)]
            for row, ends in zip(replies, endings)
        ]
        return rationale_frame(examples["example"].to_list(), texts, self.name, endings)


class _Session:
    """One pass over the requests whose replies are not in the journal."""

    def __init__(self, endpoint: EndpointSettings, journal: Journal, wanted: int) -> None:
        self.endpoint, self.journal, self.wanted = endpoint, journal, wanted
        self.spent = journal.account(endpoint.price_in, endpoint.price_out).cost
        self.reserved: list[float] = []
        self.released = asyncio.Event()
        self.next_start = 0.0
        self.failure: TaijiError | None = None
        self.backoff = Backoff(endpoint.attempts, endpoint.backoff_seconds, endpoint.longest_pause_seconds)

    async def run(self, requests: list[_Request]) -> None:
        with needs("llm", where="reasoning.endpoint"):
            import httpx

        key = os.environ.get(self.endpoint.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=self.endpoint.concurrency)
        queue = iter(requests)
        done = self.wanted - len(requests)
        with progress("Requesting texts", self.wanted, "texts") as update:
            update(done)
            async with httpx.AsyncClient(
                headers=headers, limits=limits, timeout=self.endpoint.timeout_seconds
            ) as client:

                async def work() -> None:
                    nonlocal done
                    while self.failure is None and (request := next(queue, None)):
                        try:
                            await self._answer(client, request)
                        except TaijiError as error:
                            # Let the requests in flight finish, because they are paid for.
                            self.failure = self.failure or error
                            return
                        done += 1
                        update(done)

                await asyncio.gather(*(work() for _ in range(min(self.endpoint.concurrency, len(requests)))))
        if self.failure:
            raise self.failure

    async def _answer(self, client: httpx.AsyncClient, request: _Request) -> None:
        reason, doubted = "", None
        for attempt in range(1, self.endpoint.attempts + 1):
            reservation = await self._reserve(request)
            try:
                await self._turn()
                async with asyncio.timeout(self.endpoint.timeout_seconds):
                    reply = await self._attempt(client, request, attempt)
                if doubted is not None and (reply.answer, reply.chain) == (doubted.answer, doubted.chain):
                    # The server sends the same text again, so it belongs to this request. Both replies may be billed.
                    reply = replace(
                        reply,
                        prompt_tokens=reply.prompt_tokens + doubted.prompt_tokens,
                        completion_tokens=reply.completion_tokens + doubted.completion_tokens,
                    )
                elif self.journal.delivered_before(reply):
                    doubted = reply
                    raise TransientError("the response to a different request was delivered a second time")
                self.journal.add(reply)
                self.spent += (
                    reply.prompt_tokens * self.endpoint.price_in + reply.completion_tokens * self.endpoint.price_out
                ) / 1e6
                return
            except TimeoutError:
                reason, pause = f"no response within {self.endpoint.timeout_seconds:g} s", 0.0
            except TransientError as failure:
                reason, pause = str(failure), failure.pause
            finally:
                self._release(reservation)
            if self.failure is not None:
                break
            if attempt < self.endpoint.attempts:
                await asyncio.sleep(self.backoff.pause(attempt, pause))
        raise self.failure or ResourceError(
            f"The endpoint failed {self.endpoint.attempts} times in a row.",
            where=self.endpoint.url,
            found=reason,
            fix="start the same command again once the endpoint works (`taiji run` with --resume): received replies are kept",
        )

    async def _reserve(self, request: _Request) -> float:
        """Reserve and return the maximum cost of a request, so that concurrent requests stay within the budget."""
        most = (_most_read(request) * self.endpoint.price_in + request.most_tokens * self.endpoint.price_out) / 1e6
        while self.endpoint.budget is not None and self.spent + sum(self.reserved) + most > self.endpoint.budget:
            if not self.reserved:
                raise ResourceError(
                    "The endpoint's budget does not allow another request.",
                    where="reasoning.endpoint.budget",
                    expected=f"at most {self.endpoint.budget:g}",
                    found=f"{self.spent:.4g} spent for {len(self.journal.replies)} replies, {self.wanted} wanted",
                    fix="raise the budget and start the same command again (`taiji run` with --resume), or request fewer texts",
                )
            self.released.clear()
            await self.released.wait()  # requests in flight may cost less than was reserved
        self.reserved.append(most)
        return most

    def _release(self, reservation: float) -> None:
        self.reserved.remove(reservation)
        self.released.set()

    async def _turn(self) -> None:
        """Wait until the rate limit allows this request."""
        if self.endpoint.requests_per_minute is None:
            return
        now = time.monotonic()
        start = max(now, self.next_start)
        self.next_start = start + 60.0 / self.endpoint.requests_per_minute
        await asyncio.sleep(start - now)

    async def _attempt(self, client: httpx.AsyncClient, request: _Request, attempt: int) -> Reply:
        import httpx

        address = self.endpoint.url.rstrip("/") + "/chat/completions"
        try:
            response = await client.post(address, json=request.body, headers={"Idempotency-Key": request.key})
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigError(
                "The endpoint's address is not valid.",
                where="reasoning.endpoint.url",
                expected="a base address such as http://127.0.0.1:8000/v1",
                found=self.endpoint.url,
            ) from error
        except httpx.HTTPError as error:
            raise TransientError(type(error).__name__) from error
        if is_transient(response.status_code):
            raise TransientError(f"HTTP {response.status_code}", retry_after(response.headers.get("retry-after")))
        if was_filtered(response.text) and response.status_code == 400:
            return Reply(request.key, "", "", "", 0, 0, attempt, "filtered")
        if response.status_code != 200:
            raise ResourceError(
                "The endpoint rejected a request.",
                where=address,
                found=f"HTTP {response.status_code}: {response.text[:200]}",
                fix=_mend(response.text, self.endpoint),
            )
        read = read_reply(response.text)
        said = len((read.answer + read.chain).encode())
        return Reply(
            request.key,
            read.identity,
            read.answer,
            read.chain,
            _most_read(request) if read.prompt_tokens is None else read.prompt_tokens,
            max(request.most_tokens, said) if read.completion_tokens is None else read.completion_tokens,
            attempt,
            read.ended,
            read.prompt_tokens is not None and read.completion_tokens is not None,
        )


def _most_read(request: _Request) -> int:
    """Return an upper bound on a request's prompt tokens: a token is at least one byte."""
    return len(json.dumps(request.body["messages"]).encode())


def _mend(rejection: str, endpoint: EndpointSettings) -> str:
    """Return advice on how to fix a rejected request."""
    named = [name for name in (endpoint.max_tokens_name, "temperature", "seed") if name in rejection]
    if named:
        return f"the server does not accept {', '.join(named)} as sent: see reasoning.endpoint.max_tokens_name, leave_out and extra_body"
    return f"check the model's name and the key in the environment variable {endpoint.key_variable}"
