"""The rankers of every live release, loaded in the background so that a switch of releases finds its ranker ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from taiji.serving.logs import log, where
from taiji.serving.store import Store, StoreUnavailable
from taiji.serving.types import RankRequest, RankResult, Scorer

RELEASE_POLL_S = 1.0


class Scorers:
    """Follows the store's releases.

    Args:
        store: says which releases are live.
        load: makes the scorer of a run directory.
    """

    def __init__(self, store: Store, load: Callable[[Path], Scorer]) -> None:
        self._store, self._load = store, load
        self._loaded: dict[str, Scorer | None] = {}
        self._stop = threading.Event()
        self.active: str | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End at the next poll."""
        self._stop.set()

    @property
    def state(self) -> str:
        """``ready``, ``loading`` or ``failed``, of the active release's ranker."""
        if self.active not in self._loaded:
            return "loading"
        return "ready" if self._loaded[self.active] is not None else "failed"

    def ready(self, release: str | None) -> bool:
        """Return whether a release's ranker can be asked."""
        return release is not None and self._loaded.get(release) is not None

    def refresh(self) -> None:
        """Load what is new, drop what is retired."""
        found = self._store.releases()
        self.active = found.active
        for name in sorted(found.live, key=lambda name: name != found.active):
            if name not in self._loaded:
                try:
                    self._loaded[name] = self._load(Path(found.live[name].run))
                    log("ranker loaded", release=name)
                except Exception as error:  # a release without a usable ranker still serves features
                    self._loaded[name] = None
                    log("ranker not loaded", release=name, error=where(error))
        for name in set(self._loaded) - set(found.live):
            del self._loaded[name]

    def _follow(self) -> None:
        while True:
            try:
                self.refresh()
            except StoreUnavailable as error:
                log("store unavailable", error=where(error))
            if self._stop.wait(RELEASE_POLL_S):
                return

    def score(self, asked: Sequence[tuple[str, RankRequest]]) -> list[RankResult]:
        """Answer (release, request) pairs, those of one release together."""
        results: dict[int, RankResult] = {}
        for release in sorted({name for name, _ in asked}):
            places = [place for place, (name, _) in enumerate(asked) if name == release]
            scorer = self._loaded[release]
            assert scorer is not None  # the route asked ready() first
            results.update(zip(places, scorer.score([asked[place][1] for place in places]), strict=True))
        return [results[place] for place in range(len(asked))]
