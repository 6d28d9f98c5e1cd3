"""Run a coroutine from ordinary code, even if an event loop is already running, as in a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def run_coroutine(work: Coroutine[Any, Any, T], run: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run) -> T:
    """Return the result of ``work``, which runs in an event loop of its own.

    If this thread already runs an event loop, the new loop runs in another thread while this thread waits.

    Args:
        work: the coroutine.
        run: function that creates an event loop and runs a coroutine in it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run(work)
    context = copy_context()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: context.run(run, work)).result()
