"""Coroutines from ordinary code, with and without a running event loop."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from taiji.core.event_loop import run_coroutine

NAME: ContextVar[str] = ContextVar("name")


async def work(fails: bool = False) -> tuple[str, bool]:
    await asyncio.sleep(0)
    if fails:
        raise KeyError("why")
    return NAME.get("nobody"), threading.current_thread() is threading.main_thread()


def test_without_a_running_loop_it_runs_here() -> None:
    assert run_coroutine(work()) == ("nobody", True)
    with pytest.raises(KeyError, match="why"):
        run_coroutine(work(fails=True))


def test_in_a_running_loop_as_in_a_notebook_it_runs_beside_it() -> None:
    async def cell() -> None:
        NAME.set("notebook")
        assert run_coroutine(work()) == ("notebook", False)
        with pytest.raises(KeyError, match="why"):
            run_coroutine(work(fails=True))

    asyncio.run(cell())
