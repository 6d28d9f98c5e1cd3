"""Policies of the result cache: what each decides, and how one is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taiji.core.errors import ConfigError
from taiji.serving.cache_policies import OWN, ByThreshold, CachePolicy, Never, Situation, WhenOverloaded, make_policy

CALM = Situation(room=True, load=0.0, time=0, age_s=5.0, seen=3, since=1)


def decisions(policy: CachePolicy) -> list[bool]:
    """Calm, loaded, loaded with an old list, without room, without room and with an old list."""
    loaded = replace(CALM, load=0.5)
    old = replace(loaded, age_s=3000.0)
    return [
        policy.from_cache(one) for one in (CALM, loaded, old, replace(loaded, room=False), replace(old, room=False))
    ]


def test_each_policy_decides_as_it_says() -> None:
    assert decisions(Never()) == [False] * 5
    assert decisions(WhenOverloaded()) == [False, False, False, True, True]
    assert decisions(ByThreshold(load=0.5, age_s=600)) == [False, True, False, True, True]
    assert decisions(ByThreshold(load=0.6)) == [False, False, False, True, True]
    assert decisions(ByThreshold(load=0.0, age_s=5.0)) == [False] * 3 + [True] * 2
    assert decisions(ByThreshold(load=0.0, age_s=5.1)) == [True, True, False, True, True]


class Own:
    """A policy of somebody else."""

    def __init__(self, hours: int = 1) -> None:
        self.hours = hours

    def from_cache(self, situation: Situation) -> bool:
        return situation.age_s < self.hours


def test_a_policy_is_named_shortly_or_by_its_place() -> None:
    assert isinstance(make_policy("never", {}), Never) and isinstance(make_policy("overloaded", {}), WhenOverloaded)
    made = make_policy("threshold", {"load": 0.1, "age_s": 7})
    assert isinstance(made, ByThreshold) and (made.load, made.age_s) == (0.1, 7)
    other = make_policy("tests.serving.test_cache_policies:Own", {"hours": 3})
    assert isinstance(other, CachePolicy) and type(other).__name__ == "Own"


@pytest.mark.parametrize(
    ("name", "settings", "found"),
    [
        pytest.param("sometimes", {}, "sometimes", id="no such"),
        pytest.param("never", {"load": 1}, "load", id="settings"),
        pytest.param("threshold", {"load": -1}, "-1", id="negative"),
        pytest.param("builtins:dict", {}, "dict", id="no policy"),
    ],
)
def test_what_cannot_be_made_is_told(name: str, settings: dict[str, object], found: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_policy(name, settings)
    assert found in str(error.value)


def test_every_own_name_is_of_a_policy() -> None:
    for place in OWN.values():
        module, name = place.split(":")
        found = getattr(__import__(module, fromlist=[name]), name)
        assert callable(found.from_cache)
