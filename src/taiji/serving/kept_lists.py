"""Each user's latest lists, to be shown again when no list can be computed in time.

A list is shown again to its own user alone, in the context and by the release that it was made for, and without what must not be shown
by now. It is dropped when the user has been erased since.
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
"""Lists of one user that are kept, each of another release or context."""
SHARE = 0.5
"""Share of the places asked for that a kept list must still fill, where another one could be computed."""

SAY_EVERY_S = 10.0
NEVER = 2**63 - 1
"""End of an item that is always available."""


class Missing(StrEnum):
    """Reason why nothing kept can be shown."""

    NONE = "none"
    OLD = "old"
    ERASED = "erased"
    SHORT = "short"


@dataclass(frozen=True, slots=True)
class KeptList:
    """A list that was made for a user.

    Attributes:
        release: release that made it. context: context of its request.
        made_at: microseconds since the epoch.
        seen: events of the user by then. newest: id of the newest of them, or empty.
        forgotten: whether some of the user's history had been forgotten by then.
        had: listed items that the user had clicked by then.
        length: items that were asked for, or that were found where the request did not say.
        feature_version: version of the feature row that was read, if one was.
        result: the list, and behind it what was spare.
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

    @classmethod
    def of(
        cls,
        release: str,
        request: RecommendRequest,
        result: RecommendResult,
        made_at: int,
        feature_version: int | None = None,
    ) -> KeptList:
        """Return what is kept of the answer to a request."""
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
        )

    def knows(self, history: UserHistory) -> bool:
        """Return whether the user has not been erased since: what the list was made from is still known."""
        same = self.forgotten == history.forgotten and history.seen >= self.seen
        return same and (not self.newest or any(event.id == self.newest for event in history.events))

    def shown_again(self, request: RecommendRequest, share: float = SHARE) -> RecommendResult | None:
        """Return the list as it may be shown now; None where it has no item left, or fills less than a share of the places.

        Left out are items that the request excludes, items that are not available any more, and those that the user has clicked since the
        list was made.
        """
        found, now = self.result, request.history.as_of
        without = (_clicked(request.history) - self.had).union(request.exclude)
        pairs = enumerate(zip(found.items, _ends(found), strict=True))
        places = [place for place, (item, end) in pairs if item not in without and now < end]
        wanted = request.length or self.length
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
    """Lists of the users who asked last; safe in threads.

    Args:
        users: most users whose lists are kept. seconds: age from which on a list is not shown again.
    """

    def __init__(self, users: int, seconds: float) -> None:
        self._users, self._most_us = users, int(seconds * 1e6)
        self._kept: OrderedDict[str, tuple[KeptList, ...]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, user: str, made: KeptList) -> None:
        """Keep a list in place of the one before of its release and context, and forget the user who asked longest ago if there are too many."""
        with self._lock:
            others = [one for one in self._kept.get(user, ()) if not _alike(one, made.release, made.context)]
            self._kept[user] = (made, *others)[:CONTEXTS]
            self._kept.move_to_end(user)
            while len(self._kept) > self._users:
                self._kept.popitem(last=False)

    def find(
        self, release: str, request: RecommendRequest, now: int, share: float = SHARE
    ) -> tuple[KeptList, RecommendResult] | Missing:
        """Return the list that may be shown again, as it was made and as it may be shown, or why there is none.

        Args:
            release: that would make a list now. request: to be answered. now: microseconds since the epoch.
            share: share of the requested places that must be filled; 0 takes what there is.
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
        """Forget a user's lists."""
        self._drop(user, lambda one: True)

    def _drop(self, user: str, which: Callable[[KeptList], bool]) -> None:
        with self._lock:
            left = tuple(one for one in self._kept.get(user, ()) if not which(one))
            if left:
                self._kept[user] = left
            else:
                self._kept.pop(user, None)


class KeptDiary:
    """Lines of the log about lists that were shown again, at most one per release and ten seconds."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._said: dict[str, float] = {}

    def note(self, release: str, age_s: float) -> None:
        """Count a list of this age, and log how many there were since the last line."""
        number, oldest = self._counts.get(release, (0, 0.0))
        self._counts[release] = number + 1, max(oldest, age_s)
        now = time.monotonic()
        if now >= self._said.get(release, -math.inf) + SAY_EVERY_S:
            number, oldest = self._counts.pop(release)
            self._said[release] = now
            log("lists shown again", release=release, number=number, oldest_s=round(oldest, 3))


def _clicked(history: UserHistory) -> set[str]:
    """Return the items that a user has clicked, as far as they are remembered; to have been shown one is an event, too."""
    return {event.item for event in history.events if event.click}


def _ends(result: RecommendResult) -> tuple[int, ...]:
    """Return when each item ends."""
    return result.until or (NEVER,) * len(result.items)


def _alike(made: KeptList, release: str, context: Mapping[str, ContextValue]) -> bool:
    """Return whether a list is of this release and context; true is not 1 there."""
    if made.release != release or made.context != context:
        return False
    return all(type(value) is type(context[name]) for name, value in made.context.items())
