"""What could text features at most be worth to a ranker, and which way of using them is best? No language model is
needed.

A model's answer is replaced by the *truth*, the text vector of the user's next item that is new to the user, as if a
language model were always right. If the truth does not improve the ranker, no answer can; if it does but a model's
answers do not, the model is the bottleneck.

Part ``ladder``: arms (column ``features``) from ``none`` to the truth. ``history mean`` is the mean text vector of the
user's latest fifty items, which needs no model. ``truth for 90 users`` has features for as many users as an earlier
demo covered. With ``4 times``, features are computed four times per period instead of once; ``ids only`` and
``look-alike only`` use one half of the features, the quantised ids of the vector or the items of the most similar other
user; ``the next ten, known or not`` is the mean vector of the next ten items, new or not. The shuffled truth is a
negative control.

Part ``ways``: the ranker reads the same vector (history mean or truth, four times) as ``ids and look-alike`` (Taiji's
way), or as a dense vector: through a ``projection``, through ``experts`` (KAR's), or through ``knowledge`` (KSER's
weighted and aligned chunks), which is trained with the ranker, or alone on top of a trained ranker
(``extractor-only``). In the stored results (22 November 2026), an older module without a null chunk, ``select_align``,
takes the place of ``knowledge``.

Equal for all arms of a part: rows, training seeds (three), and, except for what the way itself needs, the ranker's
settings. Columns: ``group`` of the test rows, ``metric`` and ``value``, the mean over seeds; ``minus none`` and, in the
part ``ladder``, ``minus history mean``, with the bounds of their 95 % intervals over users and seeds. The check is that
the negative control shows no gain in click AUC.

Data: completejourney, the synthetic shop, whose titles carry the tastes, and ml-latest-small if TAIJI_TEST_DATA
contains it. A full run trains 10 + 11 arms three times on each. Finished trainings are stored in $TAIJI_BENCHMARK_WORK.

    [TEXT_DATA="completejourney ml-latest-small shop"] [TAIJI_BENCHMARK_PARTS=ladder,ways]
        python -m benchmarks.text_features [--quick] [--json benchmarks/results/text_features.json]
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import Result, run
from benchmarks.rationale_data import work_folder
from benchmarks.study import QUICK_SHOP, add, no_gain
from taiji.core.artifacts import value_hash
from taiji.data.dataset import Dataset
from taiji.data.sources import load_source
from taiji.data.splits import Split, exposures, time_split
from taiji.experiments.study import JOINED_FEATURES, NEGATIVE_CONTROL, Arm, aggregate, run_cells, shuffled
from taiji.features.feature_table import fit_table
from taiji.features.history_mean import future_mean, history_mean
from taiji.features.settings import FeatureSettings
from taiji.language.embed import load_embedder
from taiji.models.ranking.knowledge import KnowledgeSettings
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.models.ranking.train import train_ranker
from taiji.pipeline.refreshes import refresh_times
from taiji.reasoning.prompts import item_lines
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop

DEMO_USERS = 90
REFRESHES = 4
RANKERS = {
    "completejourney": {"embeddings": False, "bins": 16, "task_weights": {"conversion": 0.3}},
    "ml-latest-small": {"dimension": 16},
}
"""Settings of the ranker of the part ``ladder`` by data set, as chosen by ``benchmarks.ranking``."""
QUICK_RANKER: dict[str, Any] = {"min_steps": 60, "hidden": (32,)}
METRICS = ("click auc", "click log_loss", "ctcvr auc")

Table = Callable[..., pl.DataFrame]


def measure(quick: bool) -> Result:
    """Measure the chosen parts on every data set."""
    result = Result()
    parts = os.environ.get("TAIJI_BENCHMARK_PARTS", "ladder,ways").split(",")
    names = ["shop"] if quick else os.environ.get("TEXT_DATA", "shop ml-latest-small completejourney").split()
    for name in names:
        dataset = load(name, quick)
        if dataset is None:
            print(f"{name}: skipped, TAIJI_TEST_DATA does not contain it")
            continue
        compare(result, name, dataset, parts, quick)
    return result


def load(name: str, quick: bool) -> Dataset | None:
    """Return a data set by its name; None if its files are missing."""
    if name == "shop":
        return Dataset.from_tables(Shop(ShopSettings(**(QUICK_SHOP if quick else {})), 0).tables())
    source = name if name == "completejourney" else Path(os.environ.get("TAIJI_TEST_DATA", "")) / name
    if isinstance(source, Path) and not source.is_dir():
        return None
    return Dataset.from_tables(load_source(source))


def compare(result: Result, name: str, dataset: Dataset, parts: list[str], quick: bool) -> None:
    """Measure the given parts on one data set."""
    split = time_split(dataset)
    train, test = exposures(dataset, split, "ranker"), exposures(dataset, split, "test")
    moments = {n: refresh_times(dataset, split, 5, n) for n in (1, REFRESHES)}
    chosen = moments[1]["user"].unique().sort()
    chosen = chosen.sample(min(DEMO_USERS, len(chosen) // 2), seed=0)
    groups = {f"the {len(chosen)} users": test["user"].is_in(chosen.implode()).to_numpy()}
    table = partial(made, dataset, split, moments, load_embedder().encode(item_lines(dataset)))
    seeds, more = (1, QUICK_RANKER) if quick else (3, {})
    folder = work_folder() / name

    def cells(part: str, arms: list[Arm], settings: RankerSettings, alone: bool = False) -> list[dict[str, Any]]:
        trainer = partial(extractor_only if alone else whole, dataset, settings)
        return run_cells(
            train,
            test,
            arms,
            range(seeds),
            trainer,
            folder / part,
            trainer_version=value_hash([settings.model_dump(mode="json"), alone]),
        )

    def judge(part: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = aggregate(
            found, folder / part, test, groups=groups, competitors=("history mean",), resamples=100 if quick else 1000
        )
        add(result, name, rows, METRICS, part=part)
        result.so_far()
        return rows

    if "ladder" in parts:
        rows = judge("ladder", cells("ladder", ladder(table, chosen), RankerSettings(**(RANKERS.get(name, {}) | more))))
        no_gain(result, name, rows)
    if "ways" in parts:
        found = cells("ways", [Arm("none")], RankerSettings(**more))
        for content, make in (("history mean", partial(table, history)), ("truth", partial(table, truth))):
            rows_made = make(refreshes=REFRESHES, keep_vector=True)
            found += cells("ways", [Arm(f"{content}: ids and look-alike", rows_made)], RankerSettings(**more))
            uses: dict[str, RankerSettings] = {
                "projection": RankerSettings(text="projection", **more),
                "experts": RankerSettings(text="experts", **more),
                "knowledge": KnowledgeSettings(**more),
            }
            for use, settings in uses.items():
                found += cells("ways", [Arm(f"{content}: {use}", rows_made, ("vector",))], settings)
            alone = Arm(f"{content}: knowledge, extractor-only", rows_made, ("vector",))
            found += cells("ways", [alone], uses["knowledge"], alone=True)
        judge("ways", found)


def ladder(table: Table, chosen: pl.Series) -> list[Arm]:
    """Return the arms of the ladder, from no features to the truth."""
    floor, ceiling, often = table(history), table(truth), table(truth, refreshes=REFRESHES)
    return [
        Arm("none"),
        Arm("history mean", floor),
        Arm(f"history mean, {REFRESHES} times", table(history, refreshes=REFRESHES)),
        Arm(f"truth for {len(chosen)} users", ceiling.filter(pl.col("user").is_in(chosen.implode()))),
        Arm("truth", ceiling),
        Arm(f"truth, {REFRESHES} times", often),
        Arm(f"truth, {REFRESHES} times, ids only", often, ("ids",)),
        Arm(f"truth, {REFRESHES} times, look-alike only", often, ("neighbour_items",)),
        Arm(f"truth, {REFRESHES} times, the next ten, known or not", table(next_ten, refreshes=REFRESHES)),
        Arm(f"{NEGATIVE_CONTROL}shuffled truth", shuffled(often), JOINED_FEATURES),
    ]


def history(dataset: Dataset, users: Any, as_ofs: Any, lines: Any) -> Any:
    """Return the mean vectors of each user's latest fifty items."""
    return history_mean(dataset, users, as_ofs, lines)


def truth(dataset: Dataset, users: Any, as_ofs: Any, lines: Any) -> Any:
    """Return the vectors of each user's next item that is new to the user."""
    return future_mean(dataset, users, as_ofs, lines)


def next_ten(dataset: Dataset, users: Any, as_ofs: Any, lines: Any) -> Any:
    """Return the mean vectors of each user's next ten items, new or not."""
    return future_mean(dataset, users, as_ofs, lines, limit=10, new=False)


def made(
    dataset: Dataset,
    split: Split,
    moments: dict[int, pl.DataFrame],
    lines: Any,
    content: Callable[..., Any],
    refreshes: int = 1,
    keep_vector: bool = False,
) -> pl.DataFrame:
    """Return the feature table of one kind of content."""
    rows = moments[refreshes]
    vectors = content(dataset, rows["user"].to_numpy(), rows["as_of"].to_numpy(), lines)
    return fit_table(
        dataset, rows, vectors, split.interval("test")[0], FeatureSettings(keep_vector=keep_vector), content.__name__
    )[1]


def whole(dataset: Dataset, settings: RankerSettings, train: pl.DataFrame, seed: int) -> Any:
    """Train the built-in ranker with all of its parameters."""
    return train_ranker(dataset, train, settings, seed)


def extractor_only(dataset: Dataset, settings: RankerSettings, train: pl.DataFrame, seed: int) -> Any:
    """Train a ranker without text, then the module of KSER alone on top of it."""
    base = train_ranker(dataset, train.drop("vector"), settings, seed)
    assert isinstance(base, TargetAttentionRanker)
    return base.extend(train, settings, seed=seed)


if __name__ == "__main__":
    run(measure)
