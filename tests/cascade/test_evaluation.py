"""Recall behind every step against the parts themselves, variants without a component, and popularity of the past
alone."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from taiji.cascade.assembly import make_cascade, make_retriever
from taiji.cascade.evaluation import WHOLE, evaluate_recommender, item_popularity
from taiji.cascade.requests import period_requests
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import Requests
from taiji.metrics.list_metrics import hits, recall
from taiji.models.ranking import train_ranker
from taiji.testing.datasets import exposures_of

SETTINGS = RecommendSettings(
    retrievers={
        "popular": {"model": "popularity", "seen": "keep"},
        "together": {"model": "cooccurrence", "seen": "keep"},
    },
    depths=(3, 6),
    length=5,
    most_per_category=4,
)


@pytest.fixture(scope="module")
def parts(board):
    start = int(board.events["time"][1000])
    past = board.events.filter(pl.col("time") < start)
    fitted = {name: make_retriever(name, values).fit(board, past) for name, values in SETTINGS.retrievers.items()}
    rows = exposures_of(board).filter(pl.col("time") < start)
    return start, fitted, train_ranker(board, rows, seed=0)


def test_stages_and_variants(board, parts):
    start, fitted, ranker = parts
    requests, targets = period_requests(board, start, 100, seed=0)
    found = evaluate_recommender(SETTINGS, board, fitted, ranker, requests, targets, before=start)
    retrieval = {(row["arm"], row["metric"]): row for row in found.retrieval}
    half = evaluate_recommender(SETTINGS, board, fitted, ranker, requests, targets, before=start, level=0.5)
    pairs = list(zip(found.retrieval + found.lists, half.retrieval + half.lists))
    assert all(wide["value"] == narrow["value"] for wide, narrow in pairs)
    widths = [
        (wide["high"] - wide["low"], narrow["high"] - narrow["low"])
        for wide, narrow in pairs
        if wide["low"] is not None
    ]
    assert sum(wide for wide, _ in widths) > 1.5 * sum(narrow for _, narrow in widths) > 0
    own = fitted["together"].retrieve(requests, 200).items
    expected = recall(hits(own, targets), targets.counts, 6).mean()
    assert retrieval["together", "recall@6"]["value"] == pytest.approx(expected)
    assert retrieval["together", "recall@6"]["difference"]["against"] == "popular"
    lists = {(row["arm"], row["metric"]): row for row in found.lists}
    arms = {arm for arm, _ in lists}
    assert arms == {
        WHOLE,
        "without popular",
        "without together",
        "without the ranker",
        "without re-ranking",
        "popularity alone",
    }
    # The ranker knows the checkerboard; without it and with popularity alone a list is half wrong.
    assert lists[WHOLE, "ndcg@5"]["value"] > lists["popularity alone", "ndcg@5"]["value"] + 0.1
    assert lists["popularity alone", "ndcg@5"]["difference"]["high"] < 0
    assert {"retrieve: popular", "retrieve: together", "merge", "rank", "rerank"} == set(found.milliseconds)


def test_a_planted_future_changes_no_list(board, parts):
    """After the requests everybody takes item 7, again and again: what was recommended before stays."""
    start, fitted, _ = parts
    time = int(board.events["time"][1100])
    planted = board.events.with_columns(
        pl.when(pl.col("time") >= time).then(7).otherwise(pl.col("item")).cast(pl.UInt32).alias("item"),
        pl.when(pl.col("time") >= time).then(1).otherwise(pl.col("click")).cast(pl.Int8).alias("click"),
    )
    other = replace(board, events=planted)
    requests = Requests(np.arange(12), np.full(12, time))
    lists = []
    for data in (board, other):
        retrievers = {}
        for name, model in fitted.items():
            retrievers[name] = type(model)(model.settings)
            retrievers[name].fit(data, data.events.filter(pl.col("time") < start))
        bound = train_ranker(data, exposures_of(data).filter(pl.col("time") < start), seed=0)
        lists.append(make_cascade(SETTINGS, data, retrievers, bound).recommend(requests, 5).slate)
    np.testing.assert_array_equal(lists[0].items, lists[1].items)
    np.testing.assert_array_equal(lists[0].scores, lists[1].scores)


def test_popularity_is_of_the_past(board):
    start = int(board.events["time"][700])
    clicks = board.events.filter((pl.col("time") < start) & (pl.col("click") == 1))
    share = item_popularity(board, start)
    assert share[4] == clicks.filter(pl.col("item") == 4)["user"].n_unique() / clicks["user"].n_unique()


def test_nobody_to_recommend_to(board, parts):
    start, fitted, ranker = parts
    requests, targets = period_requests(board, int(board.events["time"].max()) + 1, 10, seed=0)
    found = evaluate_recommender(SETTINGS, board, fitted, ranker, requests, targets, before=start)
    assert found.retrieval == [] and found.lists == [] and len(np.unique(requests.user)) == 0


def test_time_limits_and_quotas_change_no_arm(board, parts):
    """Blocks of requests take longer than single ones, and what is stored takes no time; popularity alone has no
    quota."""
    start, fitted, ranker = parts
    requests, targets = period_requests(board, start, 30, seed=0)

    def lists(**changes):
        settings = SETTINGS.model_copy(update=changes)
        found = evaluate_recommender(settings, board, fitted, ranker, requests, targets, before=start, resamples=20)
        return {(row["arm"], row["metric"]): row["value"] for row in found.lists}

    hasty = SETTINGS.budget.model_copy(update={"ranking_seconds": 1e-9, "ranking_block": 1})
    assert lists(budget=hasty) == lists()
    sections = {name: {**values, "quota": 2} for name, values in SETTINGS.retrievers.items()}
    narrow, wide = lists(retrievers=sections, merge="quotas"), lists()
    alone = [key for key in wide if key[0] == "popularity alone"]
    assert alone and all(narrow[key] == wide[key] for key in alone)
