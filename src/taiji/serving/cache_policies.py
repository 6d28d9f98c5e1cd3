"""Cache policies, which decide whether to compute a new list or to show the user's kept (earlier) list again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from taiji.core.component import find_class
from taiji.core.errors import ConfigError

OWN = {
    "never": "taiji.serving.cache_policies:Never",
    "overloaded": "taiji.serving.cache_policies:WhenOverloaded",
    "threshold": "taiji.serving.cache_policies:ByThreshold",
    "critics": "taiji.serving.cache_critics_policy:ByCritics",
}
GROUP, WHERE = "taiji.cache_policies", "serving.recommend.policy"


@dataclass(frozen=True, slots=True)
class Situation:
    """Circumstances of a request whose user has a kept list that may be shown.

    Attributes:
        room: False if no list can be computed in time; the request is then rejected unless the kept list is shown.
        load: number of lists that are being computed or wait to be computed, as a share of the number that can be
            computed within ``limits.wait_s``.
        time: time of the request, microseconds since the epoch.
        age_s: age of the kept list, in seconds.
        seen: number of the user's events so far.
        since: number of the user's events after the list was made.
    """

    room: bool
    load: float
    time: int
    age_s: float
    seen: int
    since: int


@runtime_checkable
class CachePolicy(Protocol):
    """Policy that chooses between a newly computed list and the kept one."""

    def from_cache(self, situation: Situation) -> bool:
        """Return True to show the kept list, False to compute a new one."""
        ...


class Never:
    """Policy that computes every list, and rejects requests for which there is no capacity."""

    def from_cache(self, situation: Situation) -> bool:
        """Return False."""
        return False


class WhenOverloaded:
    """Policy that shows the kept list if the request would be rejected otherwise."""

    def from_cache(self, situation: Situation) -> bool:
        """Return True if there is no capacity."""
        return not situation.room


class ByThreshold:
    """Policy that shows recent lists again before the load reaches the capacity, which keeps the queue short.

    Args:
        load: load at and above which kept lists are shown.
        age_s: age in seconds below which a kept list is shown; without capacity, its age does not matter.
    """

    def __init__(self, load: float = 0.25, age_s: float = 600.0) -> None:
        if not (load >= 0 and age_s >= 0):
            raise ConfigError(
                "A threshold of load or age is negative.",
                where="serving.recommend.policy_settings",
                found=f"load {load}, age_s {age_s}",
            )
        self.load, self.age_s = load, age_s

    def from_cache(self, situation: Situation) -> bool:
        """Return True if there is no capacity, or if the load is high enough and the kept list is recent enough."""
        return not situation.room or (situation.load >= self.load and situation.age_s < self.age_s)


def make_policy(name: str, settings: Mapping[str, Any]) -> CachePolicy:
    """Return the policy ``name``: one of :data:`OWN`, an entry point, or ``package.module:Name``.

    Raises:
        ConfigError: no policy has this name, it does not accept the settings, or it is not a policy.
    """
    try:
        made = find_class(OWN.get(name, name), GROUP, WHERE)(**settings)
    except TypeError as error:
        raise ConfigError(
            "The cache policy does not accept these settings.",
            where="serving.recommend.policy_settings",
            expected=f"keyword arguments of {name}",
            found=f"{dict(settings)} ({error})",
        ) from error
    if not isinstance(made, CachePolicy):
        raise ConfigError(
            "The class is not a cache policy.",
            where=WHERE,
            expected=f"{', '.join(OWN)}, or a class with from_cache(situation)",
            found=name,
        )
    return made
