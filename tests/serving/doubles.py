"""Stand-ins for the LLM and the ranker, each with one provably right answer.

The echo writer's ids are a function of the release's version and of every event it saw, so an independent checker can
tell from a row alone whether it was written by the right release from exactly the right events.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from taiji.core.errors import ResourceError
from taiji.serving import backend
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.types import (
    FeatureRow,
    RankRequest,
    RankResult,
    Recommender,
    RecommendRequest,
    RecommendResult,
    Release,
    Scorer,
    Usage,
    UserHistory,
)


def echo_ids(model_version: str, event_ids: Iterable[str]) -> tuple[int, ...]:
    """Eight ids that depend on the version and on the set of events."""
    digest = hashlib.sha256("|".join([model_version, *sorted(event_ids)]).encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 2], "big") for i in range(0, 16, 2))


class EchoWriter:
    """Writes :func:`echo_ids`; the neighbour is the user whose name ends in the next digit. Poison users raise."""

    def __init__(self, version: str = "echo-1", *, seconds: float = 0.0, faults: Path | None = None) -> None:
        self.model_version, self.quantizer_version = version, f"q-{version}"
        self.usage = Usage()
        self.calls: list[list[str]] = []
        self._seconds, self._faults = seconds, faults

    def write(self, users: Sequence[UserHistory]) -> list[FeatureRow]:
        self.calls.append([user.user for user in users])
        self._fault()
        time.sleep(self._seconds)
        if any("poison" in user.user for user in users):
            raise ValueError(f"cannot write for {users[0].user}")
        self.usage.prompt_tokens += 100 * len(users)
        self.usage.completion_tokens += 20 * len(users)
        return [self._row(user) for user in users]

    def _fault(self) -> None:
        """Raise or hang once for each line of the file of faults, which another process writes."""
        if self._faults is None:
            return
        try:
            os.rename(self._faults, taken := self._faults.with_suffix(".taken"))
        except FileNotFoundError:
            return
        if taken.read_text() == "hang":
            time.sleep(3600)
        raise RuntimeError("the LLM broke")

    def _row(self, user: UserHistory) -> FeatureRow:
        return FeatureRow(
            user=user.user,
            as_of=user.as_of,
            ids=echo_ids(self.model_version, (event.id for event in user.events)),
            neighbour=f"{user.user[:-1]}{(int(user.user[-1]) + 1) % 10}" if user.user[-1:].isdigit() else None,
            neighbour_items=tuple(event.item for event in user.events),
            model_version=self.model_version,
            quantizer_version=self.quantizer_version,
            generated_at=user.as_of,
            events_seen=user.seen,
        )


class LengthScorer:
    """Scores an item by its name's length and the history's; features add the first id. Items named ``ghost…`` are
    unknown.

    Attributes:
        seconds: that a request takes.
    """

    seconds = 0.0

    def score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        results = []
        time.sleep(self.seconds * len(requests))
        for request in requests:
            events, extra = len(request.history.events), request.features["ids"][0] * 1e-9 if request.features else None
            plain = [None if item.startswith("ghost") else 1 / (1 + len(item) + events) for item in request.items]
            other = None if extra is None else [None if score is None else score + extra for score in plain]
            wrong = {name: "no such column" for name in request.context if name.startswith("ghost")}
            results.append(RankResult(wrong_context=wrong) if wrong else RankResult(plain, other))
        return results


class ListMaker(LengthScorer):
    """Recommends the release's version, then what the user did, newest first, then the items ``item-0`` …
    ``item-49``."""

    def __init__(self, version: str = "echo-1") -> None:
        self.version, self.calls = version, 0

    def recommend(self, requests: Sequence[RecommendRequest]) -> list[RecommendResult]:
        self.calls += 1
        time.sleep(self.seconds * len(requests))
        results = []
        for request in requests:
            known = [self.version, *(event.item for event in request.history.events[::-1])]
            items = [*known, *(f"item-{number}" for number in range(50))]
            left, length = [item for item in dict.fromkeys(items) if item not in request.exclude], request.length or 10
            chosen, more = left[:length], left[length : 2 * length]
            wrong = {name: "no such column" for name in request.context if name.startswith("ghost")}
            unknown = tuple(item for item in request.exclude if item.startswith("ghost"))
            late = ("slow",) if request.history.user == "unlucky" else ()
            if request.history.user == "nobody answers":
                raise ResourceError("No retriever responded.")
            fits = request.features is not None and request.features["quantizer_version"] == "q"
            scores, sources = tuple(-float(at) for at in range(len(chosen))), ("echo",) * len(chosen)
            trace = [{"item": item, "place": at} for at, item in enumerate(chosen, 1)] if request.trace else None
            results.append(
                RecommendResult(wrong_context=wrong)
                if wrong
                else RecommendResult(
                    tuple(chosen),
                    scores,
                    sources,
                    unknown,
                    late=late,
                    seconds={"retrieve": 0.001},
                    trace=trace,
                    features="request" if fits else "none",
                    spare=RecommendResult(tuple(more), (-99.0,) * len(more), ("more",) * len(more))
                    if request.spare
                    else None,
                )
            )
        return results


# A backend module (``ServingSettings.backend``): a run directory is a folder with a file ``version``.


def release(run: Path) -> Release:
    version = (run / "version").read_text()
    return Release(f"{run.name}-{version}", str(run), version, f"q-{version}")


def rows(run: Path) -> Iterator[list[FeatureRow]]:
    """The users named in ``run/users``, one a line, as a batch run left them."""
    version, users = (run / "version").read_text(), run / "users"
    names = users.read_text().split() if users.exists() else []
    items = tuple(f"item-{number}" for number in range(50))
    for start in range(0, len(names), 500):
        yield [
            FeatureRow(user, 1, echo_ids(version, [user]), None, items, version, f"q-{version}", 1, 0)
            for user in names[start : start + 500]
        ]


def writer(run: Path, settings: ServingSettings, store: Store) -> EchoWriter:
    """Pace from ``run/seconds``, faults from ``run/fault``."""
    pace = run / "seconds"
    return EchoWriter(
        (run / "version").read_text(), seconds=float(pace.read_text()) if pace.exists() else 0.0, faults=run / "fault"
    )


def scorer(run: Path, settings: ServingSettings) -> Scorer | Recommender:
    """The real recommender, where the folder is a run of ``taiji recommend`` as well; else one at the pace of
    ``run/rank_seconds``."""
    if (run / "recommendation").is_dir():
        return backend.scorer(run, settings)
    made, pace = ListMaker((run / "version").read_text()), run / "rank_seconds"
    made.seconds = float(pace.read_text()) if pace.exists() else 0.0
    return made
