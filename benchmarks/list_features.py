"""Do features of users improve the final lists of a recommender?

With `recommend.features`, the ranker of a recommender reads the user features of a `taiji run`. This benchmark uses no
language model. It measures how much features improve the lists in two cases: they describe every taste perfectly, which
is the best case, or they are computed from the history alone. In the world `short-video` and in its twin without tastes
(negative control), one recommender (popularity, co-occurrence, ranker) is built from the log of a random policy.
Retrievers and requests are the same for all arms; only the ranker is trained anew:

- ``no features``: the baseline;
- ``history means``: mean text vector (title and categories) of those items of the user that a language model would
  read;
- ``true tastes``: the user's true taste at that time, as a perfect language model would describe it;
- ``history means of other users`` and ``true tastes of other users``: the same features, assigned to the wrong users.

The vectors become ids and look-alikes at the times of a `taiji run`, and are joined as `recommend.features` joins them.

Rows: ``true reward``, the true expected reward of an arm's lists; ``gain``, this reward minus the reward of ``no
features``, on the same requests. ``where`` is the world or the twin, ``what`` the arm. ``mean over worlds`` has
Student's 95 % interval (``low`` and ``high over worlds``) over four worlds, each with its own trainings; ``seeds`` has
the mean of each world.

Predictions, stated before the first run: true tastes improve the lists in the world. They do not if they are assigned
to the wrong users, nor in the twin. Nothing was predicted about history means, because the ranker reads the history
itself. A full run trains 40 rankers.

    python -m benchmarks.list_features [--quick] [--json FILE]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from benchmarks.recommend import over_worlds
from taiji.cascade.assembly import make_cascade, make_retriever
from taiji.cascade.requests import period_requests
from taiji.cascade.settings import RecommendSettings
from taiji.core.progress import track
from taiji.data import Dataset, Split, exposures, time_split
from taiji.experiments.world_lists import WorldTruth
from taiji.features.feature_table import fit_table, join_features
from taiji.features.history_mean import history_mean
from taiji.features.other_run import StoredFeatures
from taiji.features.settings import FeatureSettings
from taiji.language.embed import load_embedder
from taiji.models.ranking import train_ranker
from taiji.models.ranking.dcn import DCNRanker
from taiji.pipeline.refreshes import refresh_times
from taiji.reasoning.prompts import item_lines
from taiji.world import World
from taiji.world.mechanisms.taste import Taste
from taiji.world.world_time import to_days

Array = np.ndarray
NONE = "no features"
TASTES, MEANS = "true tastes", "history means"
ARMS = (MEANS, TASTES, f"{MEANS} of other users", f"{TASTES} of other users")
TWINS: dict[str, tuple[str, ...]] = {"world": (), "without tastes": ("taste",)}
"""Mechanisms that are switched off, by the name of the place."""
FEATURES = FeatureSettings(slots=4, bits=5)
COLUMNS = ("ids", "neighbour_items")
SEEDS = 4
BLOCK = 128


def measure(quick: bool) -> Result:
    result = Result()
    size = {"users": 120, "items": 200, "days": 8} if quick else {"users": 800, "items": 500, "days": 14}
    truths: dict[tuple[str, str], list[Array]] = {}
    jobs = [(seed, twin) for seed in range(2 if quick else SEEDS) for twin in TWINS]
    for seed, twin in track(jobs, "worlds", unit="recommenders"):
        for arm, values in truth_by_arm(seed, twin, quick, **size).items():
            truths.setdefault((twin, arm), []).append(values)
    gains = {}
    for (twin, arm), found in truths.items():
        result.rows.append({"part": "true reward", "where": twin, "what": arm, **over_worlds(found)})
        if arm != NONE:
            gains[twin, arm] = over_worlds([more - less for more, less in zip(found, truths[twin, NONE])])
            result.rows.append({"part": "gain", "where": twin, "what": arm, **gains[twin, arm]})
    result.at_least("world: lower end of the gain of true tastes", gains["world", TASTES]["low over worlds"], 0.0)
    for twin, arm in (("world", f"{TASTES} of other users"), ("without tastes", TASTES)):
        result.at_most(f"{twin}: lower end of the gain of {arm}", gains[twin, arm]["low over worlds"], 0.0)
    return result


def truth_by_arm(seed: int, twin: str, quick: bool, **size: Any) -> dict[str, Array]:
    """Return the true expected reward of the lists of each arm, (requests,) each."""
    world = World("short-video", seed, **size)
    for mechanism in TWINS[twin]:
        world = world.twin(mechanism)
    log = Dataset.from_tables(world.log())
    split = time_split(log)
    first, _, _, start, end = split.bounds
    settings = RecommendSettings(
        retrievers={"popular": {"model": "popularity", "half_life_days": 28}, "together": {"model": "cooccurrence"}}
    )
    past = log.events.filter(pl.col("time") < start)
    retrievers = {name: make_retriever(name, values).fit(log, past, seed=seed) for name, values in settings.retrievers.items()}  # fmt: skip
    shown = exposures(log, Split((first, first, first, start, end)), "ranker")
    requests, _ = period_requests(log, start, settings.requests, seed)
    values_of = WorldTruth(world, log).of_lists(requests)
    small = DCNRanker.Settings(epochs=1, min_steps=60, dimension=4, hidden=(16,)) if quick else DCNRanker.Settings()
    found = {}
    for arm, table in {NONE: None, **tables(world, log, split, seed)}.items():
        rows, asked = shown, requests
        if table is not None:
            rows = join_features(shown, table, COLUMNS)
            asked = StoredFeatures(table, COLUMNS, {}).joined_to(requests)
        ranker = train_ranker(log, rows, small, seed)
        assert isinstance(ranker, DCNRanker)
        cascade = make_cascade(settings, log, retrievers, ranker)
        lists = [
            cascade.recommend(asked.take(slice(at, at + BLOCK)), settings.length).slate.items
            for at in range(0, len(asked), BLOCK)
        ]
        found[arm] = next(iter(values_of(np.concatenate(lists)).values()))
    return found


def tables(world: World, log: Dataset, split: Split, seed: int) -> dict[str, pl.DataFrame]:
    """Return the feature table of each arm with features. All tables have the same users and times."""
    rows = refresh_times(log, split, 3, 2)
    users, times = rows["user"].to_numpy().astype(np.int64), rows["as_of"].to_numpy()
    vectors = {
        MEANS: history_mean(log, users, times, load_embedder("wordllama").encode(item_lines(log))),
        TASTES: true_tastes(world, log.users["user_id"].to_numpy()[users], times),
    }
    order = np.random.default_rng([seed, 1]).permutation(len(rows))
    vectors |= {f"{arm} of other users": values[order] for arm, values in vectors.items()}
    start = split.interval("test")[0]
    return {arm: fit_table(log, rows, vectors[arm], start, FEATURES, arm, seed)[1] for arm in ARMS}


def true_tastes(world: World, users: Array, times: Array) -> Array:
    """Return the true tastes (N, topics) of users (N,) at times (N,)."""
    taste = world.find(Taste)
    assert taste is not None
    slots = np.floor(to_days(times) / world.slot_days + 1e-9).astype(np.int64)
    found = np.zeros((len(users), taste.long.shape[1]), dtype=np.float32)
    for slot in np.unique(slots):
        found[slots == slot] = taste.at(users[slots == slot], int(slot))
    return found


if __name__ == "__main__":
    run(measure)
