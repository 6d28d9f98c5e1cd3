"""Latest lists of each user, which can be shown again, for example if there is no capacity to compute a new one.

A list is shown again only to the same user, in the same context and under the same release. Items that must no longer
be shown are left out. The list is dropped if the user has been erased since it was made.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock

from taiji.serving.logs import log
from taiji.serving.types import ContextValue, RecommendRequest, RecommendResult, UserHistory

CONTEXTS = 4
"""Largest number of lists kept per user, each for a different pair of release and context."""
SHARE = 0.5
"""Smallest share of a list's places that a kept list must still fill if a new list could be computed instead.

:meth:`KeptList.shown_again` defines the number of these places."""

SAY_EVERY_S = 10.0
NEVER = 2**63 - 1
"""End of availability of an item that is always available."""


class Missing(StrEnum):
    """Reason why no kept list can be shown."""

    NONE = "none"
    OLD = "old"
    ERASED = "erased"
    SHORT = "short"


@dataclass(frozen=True, slots=True)
class KeptList:
    """A list that was made for a user.

    Attributes:
        release: release that made it.
        context: context of its request.
        made_at: microseconds since the epoch.
        seen: number of events of the user at that time.
        newest: id of the newest of these events, or empty.
        forgotten: True if the user had been erased by that time.
        had: items of the list that the user had clicked by that time.
        length: requested number of items; the number found if the request set no length.
        asked: True if the request set a length.
        feature_version: version of the feature row that was read, if any.
        result: the list, followed by spare items that can replace items which must no longer be shown.
    """

    release: str
    context: Mapping[str, ContextValue]
    made_at: int
    seen: int
    newest: str
    forgotten: bool
    had: frozenset[str]
    length: int
    feature_version: int | None
    result: RecommendResult
    asked: bool = False

    @classmethod
    def of(
        cls,
        release: str,
        request: RecommendRequest,
        result: RecommendResult,
        made_at: int,
        feature_version: int | None = None,
    ) -> KeptList:
        """Create the kept list from the response to a request."""
        history, length = request.history, request.length or len(result.items)
        if (spare := result.spare) is not None:
            result = replace(
                result,
                items=result.items + spare.items,
                scores=result.scores + spare.scores,
                sources=result.sources + spare.sources,
                until=_ends(result) + _ends(spare) if result.until or spare.until else (),
            )
        return cls(
            release,
            request.context,
            made_at,
            history.seen,
            history.events[-1].id if history.events else "",
            history.forgotten,
            frozenset(result.items) & _clicked(history),
            length,
            feature_version,
            replace(result, trace=None, seconds={}, spare=None),
            request.length is not None,
        )

    def knows(self, history: UserHistory) -> bool:
        """Return False if the user data from which the list was made has been erased since, otherwise True."""
        if self.forgotten != history.forgotten or history.seen < self.seen:
            return False
        never_erased = not history.forgotten  # if the newest event is missing, it was merely dropped as too old
        return never_erased or not self.newest or any(event.id == self.newest for event in history.events)

    def shown_again(self, request: RecommendRequest, share: float = SHARE) -> RecommendResult | None:
        """Return the list as it may be shown now; None if it is empty or fills less than ``share`` of its places.

        The number of places is the requested number of items. It is limited to the number of items found for the
        original request, spare items included, except if this request asks for more items than the original one. If
        only the original request set a length, the number of places is unknown. The list is then shown whole if
        ``share`` is 0, and not at all otherwise.

        Items are left out if the request excludes them, if they are no longer available, or if the user has clicked
        them since the list was made.
        """
        found, now = self.result, request.history.as_of
        without = (_clicked(request.history) - self.had).union(request.exclude)
        pairs = enumerate(zip(found.items, _ends(found), strict=True))
        places = [place for place, (item, end) in pairs if item not in without and now < end]
        wanted = request.length or self.length
        if request.length is None and self.asked:
            if share > 0:
                return None
            wanted = len(found.items)
        possible = wanted if wanted > self.length else min(wanted, len(found.items))
        if len(places) < max(1.0, share * possible):
            return None
        places = places[:wanted]
        return replace(
            found,
            items=tuple(found.items[place] for place in places),
            scores=tuple(found.scores[place] for place in places),
            sources=tuple(found.sources[place] for place in places),
            until=tuple(found.until[place] for place in places) if found.until else (),
            unknown=(),
        )


class KeptLists:
    """Kept lists of the users for whom a list was stored most recently; thread-safe.

    Args:
        users: largest number of users whose lists are kept.
        seconds: age at which a list is no longer shown again.
    """

    def __init__(self, users: int, seconds: float) -> None:
        self._users, self._most_us = users, int(seconds * 1e6)
        self._kept: OrderedDict[str, tuple[KeptList, ...]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, user: str, made: KeptList) -> None:
        """Store a list, replacing the earlier one of its release and context.

        If there are too many users, drop the lists of the user for whom no list has been stored for the longest time.
        """
        with self._lock:
            others = [one for one in self._kept.get(user, ()) if not _alike(one, made.release, made.context)]
            self._kept[user] = (made, *others)[:CONTEXTS]
            self._kept.move_to_end(user)
            while len(self._kept) > self._users:
                self._kept.popitem(last=False)

    def find(
        self, release: str, request: RecommendRequest, now: int, share: float = SHARE
    ) -> tuple[KeptList, RecommendResult] | Missing:
        """Return the kept list, in its original form and in the form to show, or the reason why there is none.

        Args:
            release: release that would compute a list now.
            request: request to be answered.
            now: microseconds since the epoch.
            share: smallest share of its places that the list must fill, see :meth:`KeptList.shown_again`; 0 accepts any
                list that is not empty.
        """
        history = request.history
        with self._lock:
            mine = self._kept.get(history.user, ())
        known = tuple(one for one in mine if one.knows(history))
        if len(known) < len(mine):
            self._drop(history.user, lambda one: not one.knows(history))
        fitting = [one for one in known if _alike(one, release, request.context)]
        if not fitting:
            return Missing.ERASED if len(known) < len(mine) else Missing.NONE
        made = fitting[0]
        if not 0 <= now - made.made_at < self._most_us:
            return Missing.OLD
        shown = made.shown_again(request, share)
        return Missing.SHORT if shown is None else (made, shown)

    def forget(self, user: str) -> None:
        """Drop the lists of a user."""
        self._drop(user, lambda one: True)

    def _drop(self, user: str, which: Callable[[KeptList], bool]) -> None:
        with self._lock:
            left = tuple(one for one in self._kept.get(user, ()) if not which(one))
            if left:
                self._kept[user] = left
            else:
                self._kept.pop(user, None)


class KeptDiary:
    """Log of lists that were shown again, with at most one line per release every ten seconds."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._said: dict[str, float] = {}

    def note(self, release: str, age_s: float) -> None:
        """Count a list of this age; every ten seconds, log the number and largest age since the last line."""
        number, oldest = self._counts.get(release, (0, 0.0))
        self._counts[release] = number + 1, max(oldest, age_s)
        now = time.monotonic()
        if now >= self._said.get(release, -math.inf) + SAY_EVERY_S:
            number, oldest = self._counts.pop(release)
            self._said[release] = now
            log("lists shown again", release=release, number=number, oldest_s=round(oldest, 3))


def _clicked(history: UserHistory) -> set[str]:
    """Return the clicked items among the user's stored events; mere exposures do not count."""
    return {event.item for event in history.events if event.click}


def _ends(result: RecommendResult) -> tuple[int, ...]:
    """Return the end of availability of each item, in microseconds since the epoch."""
    return result.until or (NEVER,) * len(result.items)


def _alike(made: KeptList, release: str, context: Mapping[str, ContextValue]) -> bool:
    """Return whether a list has this release and context; ``True`` and 1 are different values here."""
    if made.release != release or made.context != context:
        return False
    return all(type(value) is type(context[name]) for name, value in made.context.items())
