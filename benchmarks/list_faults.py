"""Lists and rankings under faults, for :mod:`benchmarks.faults`: recommenders, clients, and a checker.

There are two recommenders with different recipes. Clients (:class:`Shoppers`) request lists and rankings from the
service, and the checker (:func:`verdicts`, :class:`Maker`) recomputes every response. It calls the library in its own
process, one request at a time. For a user without events since the training, it uses the cascade and the ranker of the
run on the run's log. For unknown users and users with later events, it uses a newly loaded recommender.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from taiji.cascade.assembly import make_cascade
from taiji.config import Config
from taiji.core.artifacts import read_json
from taiji.core.component import Requests, Slate
from taiji.models.ranking.train import load_ranker
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.pipeline.engine import Run
from taiji.pipeline.recommend_recipe import recommend_stages
from taiji.serving import backend
from taiji.serving.live_dataset import World as RunWorld
from taiji.serving.recommender import RankingRecommender
from taiji.serving.settings import ServingSettings
from taiji.serving.types import Event, RankRequest, RecommendRequest, UserHistory

Content = tuple[Any, ...]
"""Items of a list, or scores of a ranking."""

ITEMS, LOGGED = 48, 20
"""Numbers of items and of users in the log."""
ACTING = [f"u{number}" for number in range(6)]
"""Users of the log who also send events to the service."""
GONE, TO_COME = range(0, 4), range(4, 8)
"""Indices of the items that are no longer available, and of the items that are not yet available."""
SCREENS = ("phone", "wide")
START, SPAN = 1_600_000_000, 10_000_000
"""Start and length of the log, in seconds."""
LAG_S = 3.0
"""Seconds after a switch in which the previous release may still respond. A process switches within a second, but may
take longer on a busy machine."""
RECIPES: tuple[dict[str, Any], ...] = (
    {
        "retrievers": {
            "popular": {"model": "popularity", "half_life_days": 7},
            "together": {"model": "cooccurrence"},
            "sasrec": {"model": "sasrec", "width": 8, "layers": 1, "epochs": 1, "history": 10, "negatives": 0},
        },
        "most_per_category": 3,
    },
    {"retrievers": {"linear": {"model": "ease", "seen": "keep"}, "popular": {"model": "popularity"}}},
)


def train(folder: Path) -> list[Path]:
    """Train two recommenders with different recipes and seeds on one small log, and return their run folders."""
    _write_log(folder / "log")
    runs = []
    for number, recipe in enumerate(RECIPES):
        values = {
            "seed": number,
            "data": {"source": str(folder / "log")},
            "ranking": {"epochs": 1, "min_steps": 10, "dimension": 4, "hidden": [8]},
            "recommend": {
                **recipe,
                "length": 10,
                "depths": [5],
                "requests": 5,
                "traced": 0,
                "budget": {"retrieved": 20, "candidates": 30, "reranked": 20},
            },
            "evaluation": {"resamples": 10},
        }
        config = Config.model_validate(values)
        runs.append(folder / f"recipe-{number}")
        Run(runs[-1], config, recommend_stages(config), say=lambda text: None).execute()
    return runs


def _write_log(folder: Path) -> None:
    """Write a log in which each user prefers one of four kinds of items. Some items are not available at the time of
    the benchmark."""
    folder.mkdir(parents=True)
    random, rows = np.random.default_rng(0), 1500
    kind = np.arange(ITEMS) % 4
    times = START + np.sort(random.integers(SPAN, size=rows))
    until = [START + SPAN if item in GONE else None for item in range(ITEMS)]
    since = [4_000_000_000 if item in TO_COME else None for item in range(ITEMS)]
    micros = {
        name: pl.Series(name, [None if value is None else value * 1_000_000 for value in values], dtype=pl.Int64)
        for name, values in (("available_from", since), ("available_until", until))
    }
    pl.DataFrame(
        {
            "item_id": [f"S{item}" for item in range(ITEMS)],
            "title": [f"Thing {item} of kind {of}" for item, of in enumerate(kind.tolist())],
            "kind": [f"kind {of}" for of in kind.tolist()],
            **micros,
        }
    ).write_parquet(folder / "items.parquet")
    user = random.integers(LOGGED, size=rows)
    item = np.where(
        random.random(rows) < 0.6,
        (user % 4) + 4 * random.integers(ITEMS // 4, size=rows),
        random.integers(ITEMS, size=rows),
    )
    liked = np.where(kind[item] == user % 4, 0.7, 0.3)
    pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in user.tolist()],
            "item_id": [f"S{number}" for number in item.tolist()],
            "time": times,
            "click": (random.random(rows) < liked).astype(int),
            "screen": random.choice(SCREENS, rows).tolist(),
        }
    ).write_parquet(folder / "events.parquet")
    mapping = {
        "name": "faults",
        "items": {
            "file": "items.parquet",
            "item_id": "item_id",
            "title": "title",
            "category_l1": "kind",
            "keep": ["available_from", "available_until"],
        },
        "events": {
            "file": "events.parquet",
            "user_id": "user_id",
            "item_id": "item_id",
            "timestamp": {"column": "time", "unit": "s"},
            "click": "click",
            "context": ["screen"],
        },
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))


@dataclass(frozen=True)
class Answer:
    """Response with a list or a ranking, and the information that is needed to check it.

    Attributes:
        question: body of the request.
        body: body of the response.
        events: all events of the user until then; the service may not have absorbed the latest of them.
        behind_s: seconds since the release named in the response was last active; 0 if it may still have been active.
        early, late: earliest and latest time that the service's clock can have shown, in microseconds.
        exact: True if the user has feature rows of every release. Then the store determines which release responds, and
            no delay after a switch is allowed.
        settled: True if the service had absorbed all events of the user.
    """

    question: Mapping[str, Any]
    body: Mapping[str, Any]
    events: tuple[Event, ...]
    behind_s: float
    early: int
    late: int
    exact: bool
    settled: bool

    @property
    def is_ranking(self) -> bool:
        """True for a ranking, False for a list."""
        return "items" in self.question

    @property
    def content(self) -> Content:
        """The items of the list, or the scores of the candidates."""
        if self.is_ranking:
            return tuple(entry["without_features"] for entry in self.body["scores"])
        return tuple(entry["item"] for entry in self.body["items"])


@dataclass
class Shoppers:
    """Client that requests lists and rankings, and sends events of the users :data:`ACTING`. It sends one event at a
    time, so the order in which the service receives them is known.

    Args:
        ask: function that sends a request and returns status and body.
        post: function that sends events until they are acknowledged, and returns their ids.
        behind: function from a release and the start and end of a request (monotonic clock) to the number of seconds
            for which the release had certainly not been active.
        back_s: function that returns the largest number of seconds by which the service's clock has been set back.
        seed: seed of all random draws.
    """

    ask: Callable[[str, str, Any], tuple[int, Any]]
    post: Callable[[list[dict[str, Any]]], list[str]]
    behind: Callable[[str, float, float], float]
    back_s: Callable[[], float]
    seed: str
    events: dict[str, tuple[Event, ...]] = field(default_factory=lambda: dict.fromkeys(ACTING, ()))
    answers: list[Answer] = field(default_factory=list)
    refused: int = 0
    errors: list[tuple[int, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def step(self) -> None:
        """Sometimes send an event; then request a list or a ranking for a random known or unknown user."""
        rng = self._random
        if rng.random() < 0.15:
            self.act(rng.choice(ACTING))
        kinds = (ACTING, [f"u{number}" for number in range(len(ACTING), LOGGED)], ["nobody-1", "nobody-2"])
        user = rng.choice(rng.choice(kinds))
        if rng.random() < 0.7:
            self.list_of(user)
        else:
            self.ranking_of(user)

    def act(self, user: str) -> None:
        """Send one event of a user."""
        seconds = START + SPAN + 3600 * (len(self.events[user]) + 1)
        item = f"S{self._random.randrange(ITEMS)}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
        (name,) = self.post([{"user_id": user, "item_id": item, "timestamp": stamp}])
        self.events[user] += (Event(name, user, item, seconds * 1_000_000),)

    def list_of(self, user: str, *, exact: bool = False, settled: bool = False) -> bool:
        """Request a list with random length, exclusions and context, and return True if the response is a list."""
        rng = self._random
        question: dict[str, Any] = {"user": user, "k": rng.choice((1, 5, 10, 30))}
        if rng.random() < 0.5:
            chosen = rng.sample(range(ITEMS), rng.randint(1, 12))
            question["exclude"] = [f"S{number}" for number in chosen] + ["nothing"] * rng.randint(0, 1)
        return self._asked("/v1/recommend", question, exact=exact, settled=settled)

    def ranking_of(self, user: str, *, exact: bool = False, settled: bool = False) -> bool:
        """Request the scores of random items in a random context, and return True if the response has scores."""
        rng = self._random
        items = [f"S{number}" for number in rng.sample(range(ITEMS), rng.randint(1, 12))]
        question = {"user": user, "items": items + ["nothing"] * rng.randint(0, 1)}
        return self._asked("/v1/rank", question, exact=exact, settled=settled)

    def _asked(self, route: str, question: dict[str, Any], *, exact: bool, settled: bool) -> bool:
        """Send a request, with or without context, store the response, and return True if its status is 200."""
        user = question["user"]
        if self._random.random() < 0.5:
            question["context"] = {"screen": self._random.choice(SCREENS)}
        early, start = time.time(), time.monotonic()
        status, body = self.ask("POST", route, question)
        if status == 200:
            behind = self.behind(body["release"], start, time.monotonic())
            times = int((early - self.back_s() - 60) * 1e6), int((time.time() + 60) * 1e6)
            self.answers.append(
                Answer(question, body, self.events.get(user, ()), behind, *times, exact=exact, settled=settled)
            )
        elif status in (0, 503):
            self.refused += 1
        else:
            self.errors.append((status, body))
        return status == 200


def verdicts(answers: Sequence[Answer], made: Mapping[str, Maker]) -> dict[str, Any]:
    """Count lists, rankings and errors in them.

    Args:
        answers: responses; those of one user are in the order in which they were given.
        made: maker of each release, by the name of the release.

    Returns:
        ``lists``: number of lists. ``wrong lists``: lists that the release named in the response does not make for any
        history that the service can have had at that time (a history never shrinks), and lists whose response has other
        wrong fields. ``own lists``: correct lists that the other release would not have made. ``rankings``, ``wrong
        rankings`` and ``own rankings`` are the same counts for rankings. ``forbidden items``: lists with an excluded,
        unavailable, repeated or unknown item, without an item, or with too many. ``wrong release``: responses of a
        release that was not active. ``behind_s``: the longest time for which a responding release had not been active,
        in seconds.
    """
    kinds = [f"{quality}{what}" for what in ("lists", "rankings") for quality in ("", "own ", "wrong ")]
    found: dict[str, Any] = dict.fromkeys((*kinds, "forbidden items", "wrong release"), 0)
    least: dict[str, int] = {}
    for answer in answers:
        kind = "rankings" if answer.is_ranking else "lists"
        found[kind] += 1
        user, named = answer.question["user"], answer.body["release"]
        found["wrong release"] += answer.behind_s > (0.0 if answer.exact else LAG_S)
        done = len(answer.events)
        possible = range(done if answer.settled else least.get(user, 0), done + 1) if named in made else ()
        known = [number for number in possible if made[named].gives(answer, number)]
        if answer.is_ranking:
            named_items = [entry["item"] for entry in answer.body["scores"]]
            whole = named_items == answer.question["items"]
        else:
            found["forbidden items"] += forbidden(answer.content, answer)
            unknown = ["nothing"] * ("nothing" in answer.question.get("exclude", ()))
            whole = answer.body["unknown_exclusions"] == unknown
            whole &= not (answer.body["late"] or answer.body["failed"] or answer.body["unranked"])
        found[f"wrong {kind}"] += not (known and whole)
        if known:
            least[user] = known[0]
            others = [maker for name, maker in made.items() if name != named]
            found[f"own {kind}"] += not any(maker.gives(answer, known[0]) for maker in others)
    return {**found, "behind_s": max((answer.behind_s for answer in answers), default=0.0)}


def forbidden(items: Content, answer: Answer) -> bool:
    """Return True if a list is empty, is longer than requested, or has a repeated or forbidden item."""
    allowed = {f"S{number}" for number in range(ITEMS) if number not in GONE and number not in TO_COME}
    allowed -= set(answer.question.get("exclude", ()))
    return len(set(items)) != len(items) or not set(items) <= allowed or not 0 < len(items) <= answer.question["k"]


class Maker:
    """Checker that recomputes the lists and rankings of one run.

    Args:
        run: run of `taiji recommend`.
    """

    def __init__(self, run: Path) -> None:
        loaded = backend.scorer(run, ServingSettings())
        assert isinstance(loaded, RankingRecommender)
        self.run = run
        self.recommender, self.world = loaded, loaded.world
        self.ranker = load_ranker(run / "candidate_ranker" / "ranker", self.world.dataset)
        self.cascade = offline(run, self.world, self.ranker)
        self._list, self._ranking = cache(self._made), cache(self._scored)

    def gives(self, answer: Answer, known: int) -> bool:
        """Return True if this run gives this answer to a user whose first ``known`` events have been absorbed.

        The log ended years ago, so a list or a score hardly ever depends on the minute of the request. To be safe,
        several times between the bounds of the service's clock are tried. Scores may differ by rounding, because the
        service computes several requests at once.
        """
        question = answer.question
        user, context = (question["user"], answer.events[:known]), tuple(question.get("context", {}).items())
        times = (answer.late, answer.early, *np.linspace(answer.early, answer.late, 20).astype(int)[1:-1].tolist())
        if answer.is_ranking:
            items = tuple(question["items"])
            return any(
                alike(self._ranking(time // 60_000_000, *user, items, context), answer.content) for time in times
            )
        of = (*user, question["k"], tuple(question.get("exclude", ())), context)
        return any(self._list(time // 60_000_000, *of) == answer.content for time in times)

    def _scored(
        self,
        minute: int,
        user: str,
        events: tuple[Event, ...],
        items: tuple[str, ...],
        context: tuple[tuple[str, str], ...],
    ) -> Content:
        now = minute * 60_000_000
        number = self.world.users.get(user)
        if number is None or events:
            history = UserHistory(user, now, events, len(events))
            asked = RankRequest(history, items, None, dict(context))
            return tuple(self.recommender.score([asked])[0].without_features)
        columns = {"screen": np.array([dict(context).get("screen")], dtype=object)}
        known = [item for item in items if item in self.world.items]
        slate = Slate(np.array([[self.world.items[item] for item in known]], dtype=np.int64))
        state = self.ranker.encode(Requests([number], [now], columns))
        scores = dict(zip(known, self.ranker.score(state, slate)[self.ranker.goal][0].tolist()))
        return tuple(scores.get(item) for item in items)

    def _made(
        self,
        minute: int,
        user: str,
        events: tuple[Event, ...],
        k: int,
        exclude: tuple[str, ...],
        context: tuple[tuple[str, str], ...],
    ) -> tuple[str, ...]:
        now = minute * 60_000_000
        number = self.world.users.get(user)
        if number is None or events:
            history = UserHistory(user, now, events, len(events))
            return self.recommender.recommend([RecommendRequest(history, k, exclude, dict(context))])[0].items
        columns = {"screen": np.array([dict(context).get("screen")], dtype=object)}
        known = np.array([[self.world.items[item] for item in exclude if item in self.world.items]], dtype=np.int64)
        slate = self.cascade.recommend(Requests([number], [now], columns), k, exclude=known).slate
        return tuple(self.world.item_names[item] for item in slate.items[slate.mask].tolist())


def alike(one: Content, other: Content) -> bool:
    """Return True if two rankings have the same scores up to rounding, and lack a score for the same candidates."""
    pairs = list(zip(one, other, strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    return np.allclose(
        *np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2).T, rtol=1e-4, atol=0
    )


def offline(run: Path, world: RunWorld, ranker: Any) -> Any:
    """Return the cascade of a run over the run's log, composed as in the recipe of `taiji recommend`."""
    settings = Config.model_validate(read_json(run / "config.json")).recommend
    order = read_json(run / "recommendation" / "recommendation.json")["retrievers"]
    retrievers = {
        name: CatalogueRetriever.load(run / f"retriever-{name}" / "retriever", world.dataset) for name in order
    }
    settings = settings.model_copy(update={"retrievers": {name: settings.retrievers[name] for name in order}})
    return make_cascade(settings, world.dataset, retrievers, ranker)
