"""Does a reward model that is trained on the results of sends choose better copy?

The world is `push` with the mechanism `wording`: copy (a short text about an item) has a category, which is its style,
and a wording. For each of 192 items, 8 texts are sent for four weeks; in odd weeks, half of the texts are sent more
often. Pairs of texts about one item train a reward model, whose score is the sum of a *quality*, an effect of the
category and an effect of the length. It then chooses among texts about 48 other items, about which nothing was sent.
All arms choose among the same texts of the same items, and are compared by true expected clicks per 100 sends. Means
are over eight worlds (and four twins), with Student's 95 % interval. The column ``what`` names scope and arm. The
scopes are ``within`` (a random category), ``single category`` (the one with the highest click rate in the log), ``all``
(all categories), and ``kept`` (kept promises of choices from all categories). The arms ``clicks`` and ``satisfied`` are
reward models of clicks and of kept promises (clicks after which the reader found that the item is what the copy had
promised); ``few pairs`` is trained on 100 pairs; ``turned pairs`` is a negative control, with winner and loser
exchanged in a random half of the pairs. ``category alone`` chooses by the effect of the category. The heuristics are a
random text, the shortest, the longest, and the one nearest to the mean length.

Predictions, stated before the first run:

- After training on 10⁴ pairs drawn from a Bradley–Terry model, the scores of texts about other items agree with the
  true utilities: Spearman ≥ 0.9.
- Within a random category, the choice by quality among 16 wordings brings more clicks than each heuristic.
- Over all categories, the choice by the whole score brings more clicks than each heuristic and than the best single
  category.
- The gain of the best of n = 1 … 64 never exceeds the order-statistic bound E[max] − E[mean] of the true values.
- Texts chosen by a model of kept promises keep more promises than those chosen by a model of clicks, which favours
  clickbait.
- There is no gain in the twin, in which all wordings are equally good, nor with turned pairs.

If TAIJI_TEST_DATA contains womens-clothing-reviews, a reward model is also trained on pairs of reviews of one product.
The winner of a pair has more "helpful" votes, by at least two standard errors. The model is trained on the 70 % of
products with the lowest ids and evaluated on the others, which are probably newer (the log has no times). Prediction:
the accuracy is above one half, also for quality alone among pairs of equal rating and similar length (numbers of words
within 10 %). Its interval comes from a bootstrap over products.

Rows, by ``part``: ``reviews``, the accuracy of each score or heuristic; ``world``, per world the number of training
pairs, and Spearman's correlation with the true utilities after training on sends (``spearman``) and on the drawn pairs
(``planted``); ``per 100 sends``, the clicks or kept promises of each choice; ``gain``, paired differences of two
choices; ``best of n within a category``, the gains in clicks of each reward model, and in kept promises of ``clicks``
and ``satisfied``, by n, with the bound and the gain that Gaussian scores would have (``ρσE[max]``: the correlation of
scores and true values, times the standard deviation of these values, times the expected maximum of n standard normal
variables).

    python -m benchmarks.copywriting [--quick] [--json benchmarks/results/copywriting.json]
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.environments.push_copies import Copies, all_copies, push_world, results_of
from benchmarks.harness import Result, run
from benchmarks.recommend import over_worlds
from taiji.alignment.text_reward_model import TextScores
from taiji.copywriting.copy_job import fitted_to_pairs
from taiji.copywriting.copy_pairs import copy_pairs
from taiji.copywriting.settings import PairSettings
from taiji.core.progress import track
from taiji.language.embed import Embedder, load_embedder
from taiji.metrics.best_of_n import gain_bound, gain_of_best, normal_maximum
from taiji.nn.bradley_terry import preferred

Array = np.ndarray
WORLDS, TWINS = 8, 4
"""Numbers of worlds and of twins."""
DRAWN = 16
"""Number of wordings per category among which a choice is made."""
DRAWS = 8
"""Number of times that these wordings are drawn per item."""
NS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of texts among which the best is chosen."""
FEW = 100
"""Number of training pairs of the model ``few pairs``."""
HEURISTICS = ("random", "shortest", "longest", "mean length")


def measure(quick: bool) -> Result:
    result, embedder = Result(), load_embedder("wordllama")
    if folder := os.environ.get("TAIJI_TEST_DATA"):
        file = Path(folder) / "womens-clothing-reviews" / "reviews.parquet"
        if file.is_file():
            reviews(result, pl.read_parquet(file), embedder, quick)
            result.so_far()
    found: dict[str, list[dict[str, Any]]] = {"world": [], "twin": []}
    counts = {"world": 2 if quick else WORLDS, "twin": 2 if quick else TWINS}
    jobs = [(seed, where) for seed in range(counts["world"]) for where in counts if seed < counts[where]]
    for seed, twin in track(jobs, "worlds", unit="worlds"):
        found[twin].append(one_world(seed, twin, embedder, quick))
        result.rows.append({"part": "world", "where": twin, "what": f"seed {seed}", **found[twin][-1]["told"]})
        result.so_far()
    tell_worlds(result, found)
    result.so_far()
    return result


def one_world(seed: int, twin: str, embedder: Embedder, quick: bool) -> dict[str, Any]:
    """Return all measurements in one world or twin: values of the arms (items,), curves (n,), and single numbers."""
    size = {"users": 1000, "items": 60, "days": 28} if quick else {"users": 4000, "items": 240, "days": 28}
    world = push_world(seed, **size)
    if twin == "twin":
        world = world.twin("wording")
    sent = round(0.8 * size["items"])
    results = results_of(world, sent, size["days"])
    copies = all_copies(world, np.arange(sent, size["items"]), 30 if quick else 100)
    pairs = {outcome: copy_pairs(results, PairSettings(outcome=outcome)) for outcome in ("clicks", "satisfied")}
    rng = np.random.default_rng(seed)
    models = {
        "clicks": fitted_to_pairs(pairs["clicks"], embedder),
        "satisfied": fitted_to_pairs(pairs["satisfied"], embedder),
        "few pairs": fitted_to_pairs(pairs["clicks"].sample(min(FEW, len(pairs["clicks"])), seed=seed), embedder),
        "turned pairs": fitted_to_pairs(turned(pairs["clicks"], rng), embedder),
    }
    flat = copies.texts.ravel().tolist(), copies.categories.ravel().tolist()
    scores = {name: shaped(model.scores(*flat), copies.texts.shape) for name, model in models.items()}
    rates = results.group_by("category").agg(pl.col("clicks").sum() / pl.col("sends").sum()).sort("clicks")
    best = rates["category"][-1]
    told = {
        "pairs": len(pairs["clicks"]),
        "spearman": spearman(scores["clicks"].total, copies.utility),
        "planted": planted(world.seed, copies, embedder),
    }
    return {
        "told": told,
        "arms": arms(copies, scores, best, seed),
        "curves": {name: curves(copies.clicks, part.quality) for name, part in scores.items()},
        "bait": {name: curves(copies.kept, scores[name].quality) for name in ("clicks", "satisfied")},
        "correlation": within(copies.clicks, scores["clicks"].quality),
    }


def turned(pairs: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Return the pairs, with winner and loser exchanged in a random half of them."""
    swap = pl.Series(rng.random(len(pairs)) < 0.5)
    sides = [("winner", "loser"), ("winner_category", "loser_category")]
    changes = [pl.when(swap).then(b).otherwise(a).alias(a) for a, b in [*sides, *((b, a) for a, b in sides)]]
    return pairs.with_columns(changes)


def shaped(scores: TextScores, shape: tuple[int, ...]) -> TextScores:
    return TextScores(*(part.reshape(shape) for part in (scores.quality, scores.prior, scores.length)))


def spearman(a: Array, b: Array) -> float:
    ranks = [np.argsort(np.argsort(x.ravel(), kind="stable"), kind="stable") for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def planted(seed: int, copies: Copies, embedder: Embedder, pairs: int = 10_000) -> float:
    """Return Spearman's correlation of scores and true utilities on held-out items. The model is trained on pairs that
    are drawn from a Bradley–Terry model with the true utilities."""
    rng, half = np.random.default_rng([seed, 1]), len(copies.texts) // 2
    size = copies.texts[0].size
    first, second = rng.integers(0, size, (2, pairs))
    item = rng.integers(0, half, pairs)
    texts, names = copies.texts[:half].reshape(half, size), copies.categories[:half].reshape(half, size)
    utility = copies.utility[:half].reshape(half, size)
    won = rng.random(pairs) < preferred(utility[item, first] - utility[item, second])
    winner, loser = np.where(won, first, second), np.where(won, second, first)
    table = pl.DataFrame({
        "item_id": item.astype(str), "winner": texts[item, winner], "loser": texts[item, loser],
        "winner_category": names[item, winner], "loser_category": names[item, loser],
    }, schema_overrides=dict.fromkeys(("winner", "loser", "winner_category", "loser_category"), pl.String))  # fmt: skip
    model = fitted_to_pairs(table.filter(pl.col("winner") != pl.col("loser")), embedder)
    rest = copies.texts[half:].ravel().tolist(), copies.categories[half:].ravel().tolist()
    return spearman(model.scores(*rest).total, copies.utility[half:])


def arms(copies: Copies, scores: dict[str, TextScores], best: str, seed: int) -> dict[str, Array]:
    """Return the true clicks or kept promises per 100 sends of each arm's choices, (items,) each, by ``SCOPE: ARM``.

    The scopes are ``within`` (a random category per item), ``single category`` (the one with the highest click rate in
    the log), ``all`` (all categories), and ``kept`` (kept promises of choices from all categories).
    """
    items, styles, wordings = copies.texts.shape
    rng = np.random.default_rng([seed, 2])
    lengths = np.vectorize(len)(copies.texts).astype(float)
    found: dict[str, list[Array]] = {}
    for _ in range(DRAWS):
        drawn = rng.permuted(np.tile(np.arange(wordings), (items, styles, 1)), axis=2)[:, :, :DRAWN]

        def of(table: Array, drawn: Array = drawn) -> Array:
            return np.take_along_axis(table, drawn, axis=2)

        clicks, kept, length = of(copies.clicks), of(copies.kept), of(lengths)
        even = rng.random(length.shape)
        heuristics = {
            "random": even,
            "shortest": -length + even,
            "longest": length + even,
            "mean length": -np.abs(length - length.mean()) + even,
        }
        row = np.arange(items)
        category = rng.integers(0, styles, items)
        single = list(copies.categories[0, :, 0]).index(best)
        for scope, rows in (("within", category), ("single category", np.full(items, single))):
            choosers = heuristics | {name: of(part.quality) for name, part in scores.items()}
            for name, by in choosers.items():
                place = by[row, rows].argmax(axis=1)
                found.setdefault(f"{scope}: {name}", []).append(clicks[row, rows, place])
        choosers = heuristics | {name: of(part.total) for name, part in scores.items()}
        choosers["category alone"] = of(scores["clicks"].prior) + 1e-6 * even
        for name, by in choosers.items():
            place = by.reshape(items, -1).argmax(axis=1)
            found.setdefault(f"all: {name}", []).append(clicks.reshape(items, -1)[row, place])
            if name in ("clicks", "satisfied", "random"):
                found.setdefault(f"kept: {name}", []).append(kept.reshape(items, -1)[row, place])
    return {name: 100 * np.mean(values, axis=0) for name, values in found.items()}


def curves(values: Array, quality: Array) -> dict[str, Array]:
    """Return curves of the best of n within a category, (n,) each.

    ``gain`` and ``bound`` are means over items and categories per 100 sends. ``worst`` is the largest excess of a gain
    over its bound.
    """
    cells = [(values[i, s], quality[i, s]) for i in range(values.shape[0]) for s in range(values.shape[1])]
    return {
        "gain": 100 * np.array([np.mean([gain_of_best(v, q, n) for v, q in cells]) for n in NS]),
        "bound": 100 * np.array([np.mean([gain_bound(v, n) for v, _ in cells]) for n in NS]),
        "worst": np.array([max(gain_of_best(v, q, n) - gain_bound(v, n) for v, q in cells) for n in NS]),
    }


def within(values: Array, quality: Array) -> dict[str, float]:
    """Return ``rho``, the mean correlation of values and scores within an item and category, and ``rho_sigma``, the
    mean of the correlation times the standard deviation of the values.

    If values and scores were Gaussian, the gain of the best of n would be ``rho_sigma`` times E[max of n].
    """
    v, q = (x - x.mean(axis=2, keepdims=True) for x in (values, quality))
    spread = np.sqrt((v**2).mean(axis=2))
    dots = (v * q).mean(axis=2) / np.maximum(spread * np.sqrt((q**2).mean(axis=2)), 1e-12)
    return {"rho_sigma": 100 * float((dots * spread).mean()), "rho": float(dots.mean())}


def tell_worlds(result: Result, found: dict[str, list[dict[str, Any]]]) -> None:
    """Add the rows and checks of all worlds."""

    def arm(where: str, name: str) -> list[Array]:
        return [one["arms"][name] for one in found[where]]

    def gain(where: str, better: str, worse: str) -> dict[str, Any]:
        told = over_worlds([a - b for a, b in zip(arm(where, better), arm(where, worse))])
        result.rows.append({"part": "gain", "where": where, "what": f"{better} − {worse}", **told})
        return told

    for where in found:
        for name in found[where][0]["arms"]:
            result.rows.append({"part": "per 100 sends", "where": where, "what": name, **over_worlds(arm(where, name))})
    result.at_least(
        "Spearman at 10⁴ planted pairs, worst world", min(one["told"]["planted"] for one in found["world"]), 0.9
    )
    for scope in ("within", "all"):
        for name in HEURISTICS:
            low = gain("world", f"{scope}: clicks", f"{scope}: {name}")["low over worlds"]
            result.at_least(f"lower end of {scope}: reward model − {name}", low, 0.0)
    low = gain("world", "all: clicks", "single category: random")["low over worlds"]
    result.at_least("lower end of all: reward model − best single category", low, 0.0)
    gain("world", "all: clicks", "single category: clicks")
    gain("world", "all: clicks", "all: category alone")
    low = gain("world", "kept: satisfied", "kept: clicks")["low over worlds"]
    result.at_least("lower end of kept promises: model of satisfied − model of clicks", low, 0.0)
    for where, name in (("world", "turned pairs"), ("twin", "clicks")):
        low = gain(where, f"within: {name}", "within: random")["low over worlds"]
        result.at_most(f"{where}: lower end of within: {name} − random", low, 0.0)
    worst = max(
        curve["worst"].max() for one in found["world"] for curve in (*one["curves"].values(), *one["bait"].values())
    )
    result.at_most("gain beyond the order-statistic bound, worst item, category, model and n", worst, 1e-12)
    for place, n in enumerate(NS):
        row: dict[str, Any] = {"part": "best of n within a category", "n": n}
        for name in found["world"][0]["curves"]:
            row[f"clicks: {name}"] = np.mean([one["curves"][name]["gain"][place] for one in found["world"]])
        row["clicks: bound"] = np.mean([one["curves"]["clicks"]["bound"][place] for one in found["world"]])
        row["clicks: ρσE[max]"] = normal_maximum(n) * np.mean(
            [one["correlation"]["rho_sigma"] for one in found["world"]]
        )
        for name in ("clicks", "satisfied"):
            row[f"kept: {name}"] = np.mean([one["bait"][name]["gain"][place] for one in found["world"]])
        row["kept: bound"] = np.mean([one["bait"]["clicks"]["bound"][place] for one in found["world"]])
        result.rows.append(row)


def reviews(result: Result, table: pl.DataFrame, embedder: Embedder, quick: bool) -> None:
    """Train and evaluate a reward model on reviews of clothes, and add the rows and checks."""
    names = {"Clothing ID": "item_id", "Review Text": "text", "Positive Feedback Count": "likes", "Rating": "rating"}
    said = (
        table.select(pl.col(old).alias(new) for old, new in names.items())
        .drop_nulls()
        .unique(["item_id", "text"], keep="first", maintain_order=True)
    )
    said = said.with_columns(words=pl.col("text").str.split(" ").list.len(), place=pl.int_range(pl.len()))
    pairs = liked_pairs(said, 10 if quick else 60, seed=0)
    cut = np.quantile(said["item_id"].unique().to_numpy(), 0.7)
    early, late = pairs.filter(pl.col("item_id") <= cut), pairs.filter(pl.col("item_id") > cut)
    frame = early.select(
        pl.col("item_id").cast(pl.String), winner="text", loser="text2",
        winner_category=pl.col("rating").cast(pl.String), loser_category=pl.col("rating2").cast(pl.String),
    )  # fmt: skip
    model = fitted_to_pairs(frame, embedder)
    first, second = (
        model.scores(late[f"text{side}"].to_list(), late[f"rating{side}"].cast(pl.String).to_list())
        for side in ("", "2")
    )
    longer = np.sign(late["words"].to_numpy().astype(float) - late["words2"].to_numpy())
    matched = (np.abs(np.log(late["words"].to_numpy() / late["words2"].to_numpy())) <= 0.1) & (
        late["rating"] == late["rating2"]
    ).to_numpy()
    products = late["item_id"].to_numpy()
    judged = {
        "whole score": first.total - second.total,
        "quality": first.quality - second.quality,
        "length": first.length - second.length,
        "longer": longer,
        "lower rating": late["rating2"].to_numpy() - late["rating"].to_numpy(),
    }
    for what, rows in (("all", np.ones(len(late), bool)), ("length and rating matched", matched)):
        for name, difference in judged.items():
            told = accuracy(difference[rows], products[rows])
            result.rows.append({"part": "reviews", "where": what, "what": name, "pairs": int(rows.sum()), **told})
            if (name, what == "all") in (("whole score", True), ("quality", False)):
                result.at_least(
                    f"reviews of later products, {what}: lower end of the accuracy of {name}", told["low"], 0.5
                )
    result.rows.append({"part": "reviews", "what": "training pairs", "pairs": len(early), "ridge": model.ridge})


def liked_pairs(said: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """Return pairs of reviews of one product, at most ``most`` per product. The first review has more likes, by at
    least two standard errors of the difference."""
    rng = np.random.default_rng(seed)
    parts = []
    for _, group in said.group_by("item_id", maintain_order=True):
        if len(group) < 2:
            continue
        first, second = rng.integers(0, len(group), (2, 20 * most))
        likes = group["likes"].to_numpy()
        a, b = likes[first], likes[second]
        good = np.flatnonzero(a - b >= 2 * np.sqrt(np.maximum(a + b, 1)))
        keys = dict.fromkeys(zip(first[good].tolist(), second[good].tolist()))
        if keys:
            chosen = np.array(list(keys)[:most])
            other = group[chosen[:, 1]].select(pl.all().name.suffix("2"))
            parts.append(pl.concat([group[chosen[:, 0]], other], how="horizontal"))
    return pl.concat(parts)


def accuracy(difference: Array, groups: Array, resamples: int = 1000) -> dict[str, float]:
    """Return the share of pairs with a difference above 0, with a bootstrap interval over groups. A difference of 0
    counts half."""
    right = np.where(difference == 0, 0.5, difference > 0)
    number = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(number, weights=right), np.bincount(number)
    drawn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), resamples)
    low, high = np.quantile(drawn @ sums / np.maximum(drawn @ counts, 1), [0.025, 0.975])
    return {"accuracy": float(right.mean()), "low": float(low), "high": float(high), "products": len(sums)}


if __name__ == "__main__":
    run(measure)
