"""Does each component of a recommender help in a world with the mechanism that it can use, but not in twins without it?

In the world `short-video`, and in *twins* of it in which some mechanisms make no difference, a recommender is built
from a log of uniformly random lists. It consists of popularity, co-occurrence, SASRec, the merge of their lists, and a
ranker. The *gain* of a component is the true expected reward of the complete recommender's lists minus that of the
lists without this component, on the same requests of the test period. The true rewards are known, so the evaluation
adds no noise: only the log is random. Only requests for which both variants return a complete list are compared:
without popularity, users without a history get no list, which has nothing to do with these mechanisms. Gains in the
world are reported, not checked; the checks concern the twins.

Columns: ``part`` (``true reward``, ``gain`` or ``appeal brought``, see below), ``where`` (world or twin) and ``what``
(variant or component). ``value``, ``low`` and ``high``: mean over the requests of the first two worlds, with a 95 %
interval over their users. ``mean over worlds``, ``low over worlds`` and ``high over worlds``: mean over the means of
all worlds, with Student's 95 % interval; ``seeds`` lists these means. ``answered``: share of the requests that are
compared. In checks and rows, ``popular`` is popularity and ``together`` is co-occurrence; *bait* is clickbait.

**First predictions**, written down before the first run, about the lower ends of the intervals over users. Some items
appeal more to everybody, because of their quality or as clickbait; popularity can use this. Tastes differ and are
visible in histories; co-occurrence and SASRec can use this. The ranker can use both. So popularity must show no gain in
the twin without quality and clickbait, co-occurrence and SASRec none in the twin without tastes, and no component any
gain in the twin without all of these mechanisms. Two predictions failed in the first run: SASRec had a gain of .023
without tastes, and co-occurrence one of .0008 without all of them. The predictions are kept unchanged; in the stored
run only the first of these two fails.

**Second predictions**, written down after that run and before the runs on which they are checked. An interval over
users says nothing about other worlds and other trainings, but a claim about a component covers these as well. So the
interval is now Student's, over the mean gains of six worlds, each with trainings of its own. The first predictions had
also been wrong about the information that components can use:

- Popularity can use quality and bait; co-occurrence can use tastes; SASRec and the ranker can use tastes, quality and
  bait. (SASRec's softmax over the catalogue learns how often each item is clicked, as popularity does.) So the twin in
  which SASRec must show no gain is the one without all of them.
- In the twin without all of them, one mechanism remains: the items of a list compete. A list with more topics is worth
  more, whichever component found its items, so a component can have a gain or a loss by accident. Without competition
  as well, all lists of a request have the same value, so every gain must be zero up to rounding. Any other gain there
  would show a fault of the measurement.
- Popularity counts clicks. If items come and go, and so are shown for different lengths of time, a click rate measures
  their quality better. The prediction is that SASRec's gain without tastes comes from this: it must vanish if
  popularity uses click rates (clicks per exposure before the test period, shrunk) instead of counts. The *appeal* of
  the items that SASRec adds to lists, minus the appeal of those that they replace, must be above zero. (Appeal is
  quality plus the attraction of clickbait, in the logit of a click.)

The full run has six worlds of 800 users and 500 items (two of the twin without competition), the quick one two small
worlds. `TAIJI_BENCHMARK_FOLDER` stores the true rewards of each world's lists, from which a stopped run continues.

    python -m benchmarks.recommend [--quick] [--json benchmarks/results/recommend.json]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from taiji.cascade.assembly import make_retriever
from taiji.cascade.evaluation import WHOLE, evaluate_recommender
from taiji.cascade.requests import period_requests
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import Requests
from taiji.core.progress import track
from taiji.data import Dataset, Split, exposures, time_split
from taiji.data.history import History
from taiji.experiments.world_lists import WorldTruth
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.exact import student_quantile
from taiji.metrics.intervals import estimate
from taiji.models.ranking import train_ranker
from taiji.models.ranking.dcn import DCNRanker
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.world import World
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.satisfaction import Satisfaction

SEEDS, FIRST = 6, 2
"""Number of worlds of the full run, and number of them that the first predictions concern."""
ALL_OF_THEM = ("content.quality", "satisfaction", "taste")
NOTHING = "without competition either"
"""Twin in which all lists of a request have the same value. Two worlds of it suffice."""
TWINS: dict[str, tuple[str, ...]] = {
    "world": (),
    "without quality and bait": ("content.quality", "satisfaction"),
    "without tastes": ("taste",),
    "without all of them": ALL_OF_THEM,
    NOTHING: (*ALL_OF_THEM, "funnel.competition"),
}
COMPONENTS = ("popular", "together", "sasrec", "the ranker")
IDLE: dict[str, tuple[str, ...]] = {
    "without quality and bait": ("popular",),
    "without tastes": ("together", "sasrec"),
    "without all of them": COMPONENTS,
}
"""First predictions: by twin, the components that must show no gain there."""
IDLE_OVER_WORLDS: dict[str, tuple[str, ...]] = {
    "without quality and bait": ("popular",),
    "without tastes": ("together",),
    "without all of them": COMPONENTS,
}
"""Second predictions, in the same form."""
RATED = ("world", "without tastes")
"""Places in which popularity by click rates is also measured."""
RATES = "click rates for popularity"
ROUNDING = 1e-9
Array = np.ndarray


class ClickRates(CatalogueRetriever):
    """Retriever that scores items by clicks per exposure before a given time.

    A rate is shrunk towards the overall rate: to each item, exposures with the overall rate are added, as many as an
    average item has.

    Args:
        start: time in microseconds before which exposures are counted.
    """

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Count exposures and their clicks."""
        shown = self.dataset.events.filter(pl.col("exposed") & (pl.col("time") < self.start))
        places = self.codes[shown["item"].to_numpy()]
        exposed = np.bincount(places, minlength=len(self.places))
        clicks = np.bincount(places, shown["click"].to_numpy() == 1, minlength=len(self.places))
        prior = exposed.mean()
        self.rates = (clicks + prior * clicks.sum() / exposed.sum()) / (exposed + prior)

    def scores(self, requests: Requests) -> Array:
        """Return the rates (B, N), which are the same for every request."""
        return np.tile(self.rates, (len(requests), 1))

    def weights(self) -> dict[str, Array]:
        """Return the rates (N,)."""
        return {"rates": self.rates}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the rates."""
        self.rates = weights["rates"]


def measure(quick: bool) -> Result:
    """Run all worlds and twins, and check both sets of predictions."""
    result = Result()
    size = {"users": 120, "items": 200, "days": 8} if quick else {"users": 800, "items": 500, "days": 14}
    seeds = 2 if quick else SEEDS
    jobs = [(seed, twin) for seed in range(seeds) for twin in TWINS if seed < FIRST or twin != NOTHING]
    truths: dict[tuple[str, str], list[Array]] = {}
    for seed, twin in track(jobs, "worlds", unit="recommenders"):
        for variant, values in recommended(seed, twin, quick, **size).items():
            truths.setdefault((twin, variant), []).append(values)
    gains: dict[tuple[str, str], list[Array]] = {}
    for twin in TWINS:
        for (where, variant), found in truths.items():
            if where == twin and not variant.startswith("appeal"):
                level = estimate(Ratio.of_values(np.concatenate(found[:FIRST])))
                result.rows.append({"part": "true reward", "where": twin, "what": variant, **level})
        pairs = {component: (WHOLE, f"without {component}") for component in COMPONENTS}
        if twin in RATED:
            pairs |= {
                f"sasrec, {RATES}": (RATES, f"{RATES}, without sasrec"),
                f"{RATES}, without sasrec": (f"{RATES}, without sasrec", "without sasrec"),
            }
        for component, (more, less) in pairs.items():
            found = [a - b for a, b in zip(truths[twin, more], truths[twin, less])]
            gains[twin, component] = found
            gap = estimate(Ratio.of_values(np.concatenate(found[:FIRST])))
            answered = float(np.mean(np.isfinite(np.concatenate(found))))
            row = {"part": "gain", "where": twin, "what": component, **gap, "answered": answered}
            result.rows.append({**row, **over_worlds(found)})
        appeal = over_worlds(truths[twin, "appeal of what sasrec brings"])
        result.rows.append({"part": "appeal brought", "where": twin, "what": "sasrec", **appeal})
    for twin, idle in IDLE.items():
        for component in idle:
            low = estimate(Ratio.of_values(np.concatenate(gains[twin, component][:FIRST])))["low"]
            result.at_most(f"{twin}: lower end of the gain of {component}", np.nan if low is None else low, 0.0)
    for twin, idle in IDLE_OVER_WORLDS.items():
        for component in idle:
            low = over_worlds(gains[twin, component])["low over worlds"]
            result.at_most(f"{twin}: lower end over worlds of the gain of {component}", low, 0.0)
    largest = max(float(np.nanmax(np.abs(gap))) for component in COMPONENTS for gap in gains[NOTHING, component])
    result.at_most(f"{NOTHING}: largest gain or loss of any component in any list", largest, ROUNDING)
    low = over_worlds(gains["without tastes", f"sasrec, {RATES}"])["low over worlds"]
    result.at_most(f"without tastes: lower end over worlds of the gain of sasrec, {RATES}", low, 0.0)
    low = over_worlds(truths["without tastes", "appeal of what sasrec brings"])["low over worlds"]
    result.at_least("without tastes: lower end over worlds of the appeal that sasrec brings", low, 0.0)
    return result


def over_worlds(found: Sequence[Array]) -> dict[str, Any]:
    """Return the mean over worlds of each world's mean (ignoring NaN), and Student's interval."""
    means = np.array([np.nanmean(values) for values in found])
    error = float(means.std(ddof=1) / np.sqrt(len(means)))
    half = student_quantile(0.95, len(means) - 1) * error
    return {
        "mean over worlds": float(means.mean()),
        "low over worlds": float(means.mean() - half),
        "high over worlds": float(means.mean() + half),
        "seeds": [round(float(mean), 4) for mean in means],
    }


def recommended(seed: int, twin: str, quick: bool, **size: Any) -> dict[str, Array]:
    """Return :func:`truth_about_lists`, stored if the environment variable names a folder."""
    kept = os.environ.get("TAIJI_BENCHMARK_FOLDER")
    if kept is None:
        return truth_about_lists(seed, twin, quick, **size)
    file = Path(kept) / f"recommend {'quick ' * quick}{seed} {twin}.npz"
    if not file.exists():
        partial = file.with_suffix(".part.npz")
        np.savez(partial, **truth_about_lists(seed, twin, quick, **size))
        partial.rename(file)
    with np.load(file) as values:
        return dict(values)


def truth_about_lists(seed: int, twin: str, quick: bool, **size: Any) -> dict[str, Array]:
    """Return the true expected reward (B,) of the lists of every variant, NaN where a list is incomplete, and
    :func:`appeal_brought` by SASRec."""
    world = World("short-video", seed, **size)
    for mechanism in TWINS[twin]:
        world = world.twin(mechanism)
    log = Dataset.from_tables(world.log())
    split = time_split(log)
    start, _ = split.interval("test")
    first, _, _, test, end = split.bounds
    settings = RecommendSettings(
        retrievers={
            "popular": {"model": "popularity", "half_life_days": 28},
            "together": {"model": "cooccurrence"},
            "sasrec": {"model": "sasrec", **({"epochs": 3, "width": 16, "layers": 1} if quick else {"width": 32})},
        }
    )
    past = log.events.filter(pl.col("time") < start)
    retrievers = {
        name: make_retriever(name, values).fit(log, past, seed=seed) for name, values in settings.retrievers.items()
    }
    rows = exposures(log, Split((first, first, first, test, end)), "ranker")
    small = DCNRanker.Settings(epochs=1, min_steps=60, dimension=4, hidden=(16,)) if quick else DCNRanker.Settings()
    ranker = train_ranker(log, rows, small, seed)
    assert isinstance(ranker, DCNRanker)
    requests, targets = period_requests(log, start, settings.requests, seed)
    values_of = WorldTruth(world, log).of_lists(requests)

    def lists_of(popular: CatalogueRetriever) -> dict[str, Array]:
        others = {**retrievers, "popular": popular}
        return dict(
            evaluate_recommender(settings, log, others, ranker, requests, targets, before=start, seed=seed).shown
        )

    shown = lists_of(retrievers["popular"])
    appeal = appeal_brought(world, log, shown[WHOLE], shown["without sasrec"])
    if twin in RATED:
        rated = lists_of(ClickRates(start).fit(log, past))
        shown |= {RATES: rated[WHOLE], f"{RATES}, without sasrec": rated["without sasrec"]}
    found = {
        variant: np.where((lists >= 0).all(axis=1), next(iter(values_of(lists).values())), np.nan)
        for variant, lists in shown.items()
    }
    return {**found, "appeal of what sasrec brings": appeal}


def appeal_brought(world: World, log: Dataset, lists: Array, without: Array) -> Array:
    """Return the appeal (B,) of the items that a component adds to lists (B, K), minus that of the items that they
    replace.

    It is NaN if the lists with and without the component have the same items.
    """
    content, satisfaction = world.find(Content), world.find(Satisfaction)
    assert content is not None and satisfaction is not None
    of_items = (content.quality + satisfaction.settings.lure * satisfaction.bait)[log.items["item_id"].to_numpy()]
    more = (lists[:, :, None] != without[:, None, :]).all(axis=2) & (lists >= 0)
    fewer = (without[:, :, None] != lists[:, None, :]).all(axis=2) & (without >= 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        brought = (of_items[lists] * more).sum(axis=1) / more.sum(axis=1)
        replaced = (of_items[without] * fewer).sum(axis=1) / fewer.sum(axis=1)
    return brought - replaced


if __name__ == "__main__":
    run(measure)
