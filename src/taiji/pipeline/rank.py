"""Stages `reward`, `judge` and `ranking`: the ranker that rewards, the one that judges, and the arms compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.artifacts import write_json, write_parquet
from taiji.data import exposures
from taiji.models.ranking import Ranker, train_ranker
from taiji.models.ranking.external import open_ranker
from taiji.pipeline.names import ARMS
from taiji.pipeline.prepare import load, load_split

if TYPE_CHECKING:
    from taiji.data import Dataset
    from taiji.models.ranking.external import PairScorer
    from taiji.pipeline.engine import Context


def _train(context: Context, dataset: Dataset, frame: pl.DataFrame, folder: str) -> Ranker:
    ranker = train_ranker(dataset, frame, context.config.ranking, seed=context.config.seed)
    ranker.save(context.folder / folder)
    return ranker


def ranker_that(context: Context, role: str, dataset: Dataset) -> PairScorer:
    """The ranker that plays a role (`reward` or `judge`): the user's own where the configuration names one."""
    own = context.config.own_ranker
    source = getattr(own, role)
    return (
        open_ranker(source, dataset, own.external) if source else Ranker.load(context.input(role) / "ranker", dataset)
    )


def reward(context: Context) -> dict[str, Any]:
    """Train the reward ranker: it sees the earliest period only."""
    if context.config.own_ranker.reward:
        return {"ranker": context.config.own_ranker.reward}
    dataset = load(context)
    rows = exposures(dataset, load_split(context), "reward")
    _train(context, dataset, rows, "ranker")
    return {"exposures": len(rows)}


def judge(context: Context) -> dict[str, Any]:
    """Train the ranker without features on the ranker period; it also judges the language models' answers."""
    dataset = load(context)
    rows = exposures(dataset, load_split(context), "ranker")
    _train(context, dataset, rows, "ranker")
    return {"exposures": len(rows)}


def ranking(context: Context) -> dict[str, Any]:
    """Train a ranker for each feature table and let all score the test exposures of the users who have features."""
    from taiji.features.feature_table import feature_metrics, join_features

    dataset, split = load(context), load_split(context)
    train, test = exposures(dataset, split, "ranker"), exposures(dataset, split, "test")
    tables = {arm: pl.read_parquet(context.input("features") / f"{arm}.parquet") for arm in ARMS}
    columns = context.config.features.columns
    reached = {
        arm: feature_metrics(join_features(test, table, ("ids", "neighbour_items"))) for arm, table in tables.items()
    }
    write_json(context.folder / "coverage.json", reached)
    # One population for all arms: users for whom there is something to compare.
    test = test.join(tables["taiji"].select("user").unique(), on="user", how="semi", maintain_order="left")
    write_parquet(context.folder / "exposures.parquet", test)
    predictions = {"none": Ranker.load(context.input("judge") / "ranker", dataset).predict(test)}
    for arm, table in tables.items():
        ranker = _train(context, dataset, join_features(train, table, columns), arm)
        predictions[arm] = ranker.predict(join_features(test, table, columns))
    for arm, frame in predictions.items():
        write_parquet(context.folder / f"predictions-{arm}.parquet", frame)
    return {"train": len(train), "test": len(test), "arms": list(predictions)}
