"""Models of all live releases, loaded in the background so that they are ready when releases are switched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from taiji.core.errors import TaijiError
from taiji.serving.batching import Overloaded
from taiji.serving.logs import log, where
from taiji.serving.store import Releases, Store, StoreUnavailable, why
from taiji.serving.types import (
    FeaturesOnly,
    IntentRequest,
    IntentSource,
    RankRequest,
    RankResult,
    Recommender,
    RecommendRequest,
    RecommendResult,
    Scorer,
    StudentRow,
    UserDirectory,
    UserHistory,
)

Q = TypeVar("Q")
R = TypeVar("R")
RELEASE_POLL_S = 1.0
AFTER_TROUBLE_S = 0.1
"""Seconds until the next poll while the store is unavailable; the active release may have changed just before."""
STOP_S = 2.0
SAY_EVERY_S = 2.0
RETRY_S = 60.0
"""Seconds after which models that could not be loaded are tried again; missing stages may be finished by then."""


class Scorers:
    """Loader of the models of the store's live releases.

    Args:
        store: store of the releases.
        load: function that loads the models of a run directory, and returns a scorer, a recommender, or an object that
            is both.
        told: callback that gets the loaded and the failed releases, every few seconds and at every change.
    """

    def __init__(
        self,
        store: Store,
        load: Callable[[Path], Scorer | Recommender],
        told: Callable[[Mapping[str, Any]], object] = lambda facts: None,
    ) -> None:
        self._store, self._load, self._told = store, load, told
        self._said: tuple[float, dict[str, Any]] = (0.0, {})
        self._found: Releases | None = None
        self._seen = threading.Event()
        self._looking = threading.Lock()
        self._loaded: dict[str, Scorer | Recommender | None] = {}
        self._reasons: dict[str, str] = {}
        self._again: dict[str, float] = {}
        self.trouble = ""
        """Unexpected error of the last poll or refresh, other than an unavailable store; empty if there was none."""
        self._stop = threading.Event()
        self.active: str | None = None
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._follow, self._watch)]

    def start(self) -> None:
        """Begin to follow the releases."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop following the releases; wait only briefly if a model is being loaded."""
        self._stop.set()
        self._seen.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(STOP_S)

    @property
    def state(self) -> str:
        """State of the active release's ranker: ``ready``, ``loading``, ``failed``, or ``none``.

        It is ``none`` if the release has no ranker that can be used online.
        """
        if self.active not in self._loaded:
            return "loading"
        return self._state(Scorer)

    @property
    def recommender_state(self) -> str:
        """State of the active release's recommender: ``ready``, ``loading``, ``failed``, or ``none`` if it has none."""
        return "loading" if self.active not in self._loaded else self._state(Recommender)

    def _state(self, kind: type) -> str:
        if isinstance(self._loaded.get(self.active or ""), kind):
            return "ready"
        return "failed" if self.active in self._reasons else "none"

    @property
    def reason(self) -> str:
        """Reason why the active release's models could not be loaded; empty if loading did not fail."""
        return self._reasons.get(self.active or "", "")

    def ready(self, release: str | None) -> bool:
        """Return whether a release's ranker is loaded."""
        return isinstance(self._loaded.get(release or ""), Scorer)

    def recommends(self, release: str | None) -> bool | None:
        """Return whether a release has a recommender; None while its models are being loaded or if they could not be
        loaded."""
        if release not in self._loaded or release in self._reasons:
            return None
        return isinstance(self._loaded[release], Recommender)

    def says_intents(self, release: str | None) -> bool:
        """Return whether a release has a student model that predicts intents."""
        found = self._loaded.get(release or "")
        return isinstance(found, IntentSource) and found.says_intents

    def knows(self, release: str | None, history: UserHistory) -> bool | None:
        """Return whether a user is in the data of a release's run or has had later events.

        The result is None if the user has no later events and the backend cannot tell which users the run contains.
        """
        if history.seen:
            return True
        found = self._loaded.get(release or "")
        return found.has_user(history) if isinstance(found, UserDirectory) else None

    def look(self) -> Releases:
        """Read the releases, and serve the active one if its models are loaded.

        A thread does this every second. Call this method after a switch in this process, so that no later request is
        answered by the former release.

        Raises:
            StoreUnavailable: the releases could not be read.
        """
        with self._looking:  # so that an older reading never replaces a newer one
            self._found = self._store.releases()
            self._point_to(self._found)
        return self._found

    def refresh(self) -> None:
        """Load the models of new releases, and drop the models of retired releases."""
        found = self._found or self.look()
        for name in sorted(found.live, key=lambda name: name != found.active):
            if name not in self._loaded or (name in self._again and time.monotonic() >= self._again[name]):
                self._open(name, Path(found.live[name].run))
                with self._looking:
                    self._point_to(self._found or found)
        for name in set(self._loaded) - set(found.live):
            del self._loaded[name]
            self._again.pop(name, None)
            self._reasons.pop(name, None)

    def _point_to(self, found: Releases) -> None:
        """Set the active release. Until its models are loaded, the former release stays active if it is still live."""
        if found.active in self._loaded or self.active not in self._loaded or self.active not in found.live:
            if self.active != found.active:  # log every switch, whether a request or a command caused it
                log("release served", release=found.active, before=self.active)
            self.active = found.active

    def _open(self, name: str, run: Path) -> None:
        """Load a release's models; if this fails, its features are still served."""
        try:
            self._loaded[name] = self._load(run)
            log("ranker loaded", release=name)
        except FeaturesOnly as error:
            self._loaded[name] = None
            log("ranker not used online", release=name, why=error.message)
        except Exception as error:
            self._reasons[name] = error.message if isinstance(error, TaijiError) else where(error)
            self._again[name] = time.monotonic() + RETRY_S
            self._loaded[name] = None
            log("ranker not loaded", release=name, error=self._reasons[name])
            return
        self._again.pop(name, None)
        self._reasons.pop(name, None)

    def _watch(self) -> None:
        """Read the releases every second and report what is loaded, however long the loading of a model takes."""
        there = True
        while not self._stop.is_set():
            try:
                self.look()
                self._say()
                self._seen.set()
                there = True
            except StoreUnavailable as error:
                if there:  # once per outage
                    log("store unavailable", error=why(error))
                there = False
            except Exception as error:  # if the thread ended here, it would never notice another release
                self.trouble = where(error)
                log("releases not refreshed", error=self.trouble)
            self._stop.wait(RELEASE_POLL_S if there else min(RELEASE_POLL_S, AFTER_TROUBLE_S))

    def _follow(self) -> None:
        """Load the models of new releases after every successful poll."""
        while True:
            self._seen.wait()
            self._seen.clear()
            if self._stop.is_set():
                return
            try:
                self.refresh()
                self.trouble = ""
                self._say()
            except StoreUnavailable as error:
                log("store unavailable", error=why(error))
            except Exception as error:
                self.trouble = where(error)
                log("releases not refreshed", error=self.trouble)

    def _say(self) -> None:
        loaded = sorted(name for name in self._loaded.copy() if name not in self._reasons)
        facts = {"kind": "api", "loaded": loaded, "failed": dict(self._reasons)}
        at, before = self._said
        if facts != before or time.monotonic() > at + SAY_EVERY_S:
            self._told(facts)
            self._said = time.monotonic(), facts

    def score(self, asked: Sequence[tuple[str, RankRequest]]) -> list[RankResult]:
        """Return one result per (release, request) pair; the requests of a release are scored together."""

        def answer(release: str, requests: list[RankRequest]) -> list[RankResult]:
            scorer = self._loaded.get(release)
            if not isinstance(scorer, Scorer):  # retired since the route called ready()
                raise Overloaded
            return scorer.score(requests)

        return _by_release(asked, answer)

    def intents(self, asked: Sequence[tuple[str, IntentRequest]]) -> list[StudentRow | None]:
        """Return one result per (release, request) pair; the requests of a release are answered together.

        A result is None if the user's intents are up to date or cannot be computed, or if the release was retired
        meanwhile.
        """

        def answer(release: str, requests: list[IntentRequest]) -> list[StudentRow | None]:
            source = self._loaded.get(release)
            return source.intents(requests) if isinstance(source, IntentSource) else [None] * len(requests)

        return _by_release(asked, answer)

    def recommend(self, asked: Sequence[tuple[str, RecommendRequest]]) -> list[RecommendResult]:
        """Return one result per (release, request) pair; the requests of a release are answered together."""

        def answer(release: str, requests: list[RecommendRequest]) -> list[RecommendResult]:
            recommender = self._loaded.get(release)
            if not isinstance(recommender, Recommender):  # retired since the route called recommends()
                raise Overloaded
            return recommender.recommend(requests)

        return _by_release(asked, answer)


def _by_release(asked: Sequence[tuple[str, Q]], answer: Callable[[str, list[Q]], list[R]]) -> list[R]:
    """Return the results in the order of the pairs, with one call per release."""
    results: dict[int, R] = {}
    for release in sorted({name for name, _ in asked}):
        places = [place for place, (name, _) in enumerate(asked) if name == release]
        results.update(zip(places, answer(release, [asked[place][1] for place in places]), strict=True))
    return [results[place] for place in range(len(asked))]
