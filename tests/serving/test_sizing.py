from __future__ import annotations

import re
from pathlib import Path

import pytest

from taiji.serving.sizing import Model, Store, Workload, size


def test_by_hand() -> None:
    """A day of 86,400 users, each with one call of 1 s on a GPU: one GPU at rate one."""
    workload = Workload(
        users=86_400,
        active_share=1,
        events_per_active=2,
        sessions_per_active=1,
        refresh_share=1,
        staleness_days=0,
        reads_per_active=10,
        peak=1,
    )
    model = Model(
        prompt_tokens=1000,
        cached_share=0.5,
        completion_tokens=50,
        prefill_per_s=1000,
        decode_per_s=100,
        utilisation=1,
        gpu_hour=2,
    )
    store = Store(
        row_bytes=1000,
        event_bytes=100,
        history=10,
        releases=2,
        reads_per_core=20,
        api_reads_per_core=5,
        memory_gb=1,
        replicas=2,
    )
    found = size(workload, model, store)
    assert (
        found.events_per_s == pytest.approx(2)
        and found.calls_per_day == 86_400
        and found.calls_per_s == pytest.approx(1)
    )
    assert found.seconds_per_call == pytest.approx(1) and found.gpus == pytest.approx(1)
    assert (found.prompt_tokens_per_s, found.completion_tokens_per_s) == (pytest.approx(500), pytest.approx(50))
    assert found.gpu_cost_per_day == pytest.approx(48) and found.cost_per_million_users_day == pytest.approx(
        48 / 0.0864
    )
    assert (
        found.reads_per_s == pytest.approx(10)
        and found.api_cores == pytest.approx(2)
        and found.store_cores == pytest.approx(0.5)
    )
    assert found.store_gb == pytest.approx(86_400 * 3000 * 2 / 1e9) and found.store_machines == pytest.approx(
        found.store_gb
    )


def test_the_knobs_turn_the_right_way() -> None:
    base = size().gpus
    assert size(Workload(refresh_share=0.25)).gpus < base
    assert size(Workload(staleness_days=14)).gpus < base < size(Workload(staleness_days=1)).gpus
    assert size(Workload(staleness_days=0)).calls_per_day == pytest.approx(400e6 * 0.3 * 2 * 0.5)
    assert size(model=Model(completion_tokens=100)).gpus < base
    assert size(model=Model(prefill_per_s=44_000, decode_per_s=15_600)).gpus == pytest.approx(base / 4)
    assert size(store=Store(releases=1)).store_gb < size().store_gb
    assert size(Workload(users=800e6)).gpus == pytest.approx(2 * base)


def test_the_documentation_quotes_these_figures() -> None:
    """The table of the example in docs/serving.md is what the function gives."""
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    found = size()
    for name in (
        "events_per_s",
        "calls_per_s",
        "prompt_tokens_per_s",
        "completion_tokens_per_s",
        "gpus",
        "gpu_cost_per_day",
        "reads_per_s",
        "api_cores",
        "store_gb",
        "store_machines",
    ):
        row = re.search(rf"^\| `{name}` \|.*\| ([0-9,]+) \|$", page, re.MULTILINE)
        assert row, name
        assert row[1] == f"{getattr(found, name):,.0f}", name
