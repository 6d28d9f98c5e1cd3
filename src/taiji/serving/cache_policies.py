"""Policies that decide whether a list is computed in real time or the user's kept list is shown again."""

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
        room: False where no list can be computed in time, so that the request is refused if the kept list is not taken.
        load: lists that are being computed or wait for it, as a share of those that can be computed within ``limits.wait_s``.
        time: time of the request, microseconds since the epoch.
        age_s: age of the kept list.
        seen: events of the user ever taken in. since: those of them that came after the list was made.
    """

    room: bool
    load: float
    time: int
    age_s: float
    seen: int
    since: int


@runtime_checkable
class CachePolicy(Protocol):
    """Chooser between a list that is computed now and the kept one."""

    def from_cache(self, situation: Situation) -> bool:
        """Return whether the kept list is shown."""
        ...


class Never:
    """Policy that computes every list, and leaves the requests without room unanswered."""

    def from_cache(self, situation: Situation) -> bool:
        """Return false."""
        return False


class WhenOverloaded:
    """Policy that shows the kept list where the request would be refused otherwise."""

    def from_cache(self, situation: Situation) -> bool:
        """Return whether there is no room."""
        return not situation.room


class ByThreshold:
    """Policy that shows young lists again before there is no room, which keeps the queue short.

    Args:
        load: from which on a kept list is shown. age_s: it must be younger, unless there is no room.
    """

    def __init__(self, load: float = 0.25, age_s: float = 600.0) -> None:
        if not (load >= 0 and age_s >= 0):
            raise ConfigError(
                "Thresholds of load and age are not negative.",
                where="serving.recommend.policy_settings",
                found=f"load {load}, age_s {age_s}",
            )
        self.load, self.age_s = load, age_s

    def from_cache(self, situation: Situation) -> bool:
        """Return whether there is no room, or the load has been reached and the list is young enough."""
        return not situation.room or (situation.load >= self.load and situation.age_s < self.age_s)


def make_policy(name: str, settings: Mapping[str, Any]) -> CachePolicy:
    """Return the policy of a name: one of :data:`OWN`, an entry point, or ``package.module:Name``; settings are its keyword arguments.

    Raises:
        ConfigError: there is none of the name, it does not take the settings, or it is not a policy.
    """
    try:
        made = find_class(OWN.get(name, name), GROUP, WHERE)(**settings)
    except TypeError as error:
        raise ConfigError(
            "The policy of the cache does not take these settings.",
            where="serving.recommend.policy_settings",
            expected=f"keyword arguments of {name}",
            found=f"{dict(settings)} ({error})",
        ) from error
    if not isinstance(made, CachePolicy):
        raise ConfigError(
            "This is not a policy of the cache.",
            where=WHERE,
            expected=f"{', '.join(OWN)}, or a class with from_cache(situation)",
            found=name,
        )
    return made
