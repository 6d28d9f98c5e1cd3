"""Concurrent calls of several retrievers, without waiting for late ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from taiji.core.component import Requests, Retriever, Slate
from taiji.core.errors import ResourceError

log = logging.getLogger(__name__)


@dataclass
class Retrieved:
    """Results of the retrievers.

    Attributes:
        slates: slates by retriever, in the order of the retrievers.
        late: retrievers that did not respond in time or were still busy with an earlier call.
        failed: retrievers that raised an error, with the messages.
    """

    slates: dict[str, Slate]
    late: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class RetrieverPool:
    """Pool of retrievers that are called concurrently, one thread each.

    A late call continues in its thread and its result is dropped. The retriever is not called again until this call
    has finished, so calls cannot pile up.

    Args:
        retrievers: retrievers by name.
        seconds: time limit; None calls all retrievers one after another in the calling thread, without a limit.
    """

    def __init__(self, retrievers: Mapping[str, Retriever], seconds: float | None = None) -> None:
        self.retrievers, self.seconds = dict(retrievers), seconds
        self._busy: dict[str, Future[Slate]] = {}
        self._threads = None if seconds is None else ThreadPoolExecutor(len(self.retrievers), "retriever")
        self.counts = {name: {"asked": 0, "late": 0, "failed": 0} for name in self.retrievers}

    def ask(self, requests: Requests, k: int) -> Retrieved:
        """Return at most ``k`` candidates per request from every retriever.

        Raises:
            ResourceError: no retriever responded.
        """
        asked = Retrieved({})
        running: dict[str, Future[Slate]] = {}
        for name, retriever in self.retrievers.items():
            self.counts[name]["asked"] += 1
            earlier = self._busy.get(name)
            if earlier is not None and not earlier.done():
                asked.late.append(name)
            elif self._threads is not None:
                running[name] = self._busy[name] = self._threads.submit(retriever.retrieve, requests, k)
            else:
                running[name] = _answered(retriever, requests, k)
        wait(running.values(), timeout=self.seconds)
        for name, future in running.items():
            if not future.done():
                asked.late.append(name)
                continue
            error = future.exception()
            if error is None:
                asked.slates[name] = future.result()
            elif self._threads is None and not isinstance(error, Exception):
                raise error
            else:
                asked.failed[name] = f"{type(error).__name__}: {error}"
                log.warning("Retriever %s failed and is left out: %s", name, asked.failed[name])
        for name in asked.late:
            self.counts[name]["late"] += 1
        for name in asked.failed:
            self.counts[name]["failed"] += 1
        if not asked.slates:
            raise ResourceError(
                "No retriever responded.",
                where="retrieval",
                found="; ".join(
                    [*(f"{name} timed out" for name in asked.late), *(f"{n}: {e}" for n, e in asked.failed.items())]
                ),
                fix="increase retrieval_seconds, or check the retrievers' messages",
            )
        return asked

    def close(self) -> None:
        """Stop the threads after waiting for running calls."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)


def _answered(retriever: Retriever, requests: Requests, k: int) -> Future[Slate]:
    future: Future[Slate] = Future()
    try:
        future.set_result(retriever.retrieve(requests, k))
    except Exception as error:
        future.set_exception(error)
    return future
