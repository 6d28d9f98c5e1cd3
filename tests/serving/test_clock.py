from __future__ import annotations

import pytest

from taiji.serving import clock
from taiji.serving.clock import SteadyClock


def test_it_goes_on_when_the_machines_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([100, 150, 180])
    monkeypatch.setattr(clock, "_ticks_us", lambda: next(ticks))
    monkeypatch.setattr(clock, "wall_us", lambda: 10_000)
    steady = SteadyClock()
    monkeypatch.setattr(clock, "wall_us", lambda: 5)
    assert [steady(), steady()] == [10_050, 10_080]


def test_a_process_started_under_a_stepped_clock_takes_the_stores_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_ticks_us", lambda: 7)
    monkeypatch.setattr(clock, "wall_us", lambda: 10_000)
    assert SteadyClock(floor=90_000)() == 90_000
    assert SteadyClock(floor=9)() == 10_000


def test_it_runs() -> None:
    steady = SteadyClock()
    first, second = steady(), steady()
    assert first <= second and abs(first - clock.wall_us()) < 5_000_000


def test_a_clock_far_ahead_of_the_supervisors_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, year = 1_800_000_000_000_000, 365 * 86_400 * 10**6
    monkeypatch.setattr(clock, "wall_us", lambda: now + year)
    ahead = SteadyClock(0, supervisor=now)
    assert ahead.jumped and now <= ahead() < now + 10**6
    assert SteadyClock(now + 5 * 10**6, supervisor=now)() >= now + 5 * 10**6
    monkeypatch.setattr(clock, "wall_us", lambda: now + 10**6)
    near = SteadyClock(0, supervisor=now)
    assert not near.jumped and near() >= now + 10**6
    assert not SteadyClock(0).jumped
