"""What a cascade returns against its parts composed by hand, under exclusions, budgets and failures."""

import threading
import time

import numpy as np
import polars as pl
import pytest

from taiji.cascade.budget import Budget
from taiji.cascade.cascade import Cascade, Ranking
from taiji.cascade.merging import FilledQuotas, FusedRanks
from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError, ResourceError
from taiji.models.fusion.weighted import LinearFusion, RankAverage
from taiji.models.rerank.diversity import MMR, Caps

REQUESTS = Requests(np.arange(3), np.full(3, 10))


class Fixed:
    """Answers with the same items for everybody."""

    def __init__(self, *items):
        self.items = np.array(items)

    def retrieve(self, requests, k):
        return Slate(np.tile(self.items[:k], (len(requests), 1)))


class Failing:
    def retrieve(self, requests, k):
        raise RuntimeError("no connection")


class ByNumber:
    """Predicts a click by the item's number and the user; counts how often the request side is made."""

    def __init__(self, seconds=0.0):
        self.encoded, self.scored, self.seconds = 0, 0, seconds

    def encode(self, requests):
        self.encoded += 1
        return requests

    def score(self, state, slate):
        time.sleep(self.seconds)
        self.scored += slate.items.size
        return {"click": (slate.items * 7 + state.user[:, None] * 3) % 11 / 11, "like": slate.items / 100}


def merged(*names):
    return FusedRanks(names)


def test_composition_by_hand():
    ranking = Ranking(ByNumber(), LinearFusion({"click": 1.0, "like": 0.1}))
    cascade = Cascade({"a": Fixed(1, 2, 3, 4), "b": Fixed(9, 3)}, merged("a", "b"), ranking)
    found = cascade.recommend(REQUESTS, 3)
    for user, items in enumerate(found.slate.items):
        scores = {item: (item * 7 + user * 3) % 11 / 11 + item / 1000 for item in (1, 2, 3, 4, 9)}
        assert items.tolist() == sorted(scores, key=lambda item: -scores[item])[:3]
        np.testing.assert_allclose(found.slate.scores[user], sorted(scores.values())[::-1][:3])
    assert ranking.scorer.encoded == 1 and set(found.seconds) == {"retrieve", "merge", "rank", "rerank"}


def test_fusion_may_weigh_the_merge():
    ranking = Ranking(ByNumber(), LinearFusion({"click": 1e-6, "merged": 1.0}))
    found = Cascade({"a": Fixed(5, 6, 7)}, merged("a"), ranking).recommend(REQUESTS, 3)
    assert found.slate.items.tolist() == [[5, 6, 7]] * 3
    np.testing.assert_allclose(found.slate.scores[0], 1 / np.array([61, 62, 63]), atol=1e-5)


def test_without_a_ranker_the_merge_decides():
    found = Cascade({"a": Fixed(5, 6, 7)}, merged("a")).recommend(REQUESTS, 2)
    assert found.slate.items.tolist() == [[5, 6]] * 3


def test_rerankers_choose_from_the_best_ones_without_a_ranker_as_well():
    vectors = np.zeros((50, 2))
    vectors[:, 0], vectors[49] = 1.0, [0.0, 1.0]  # only the last candidate differs
    cascade = Cascade(
        {"a": Fixed(*range(50))},
        merged("a"),
        rerankers=[MMR(vectors, 0.2)],
        budget=Budget(candidates=50, reranked=5),
    )
    found = cascade.recommend(REQUESTS, 3, trace=True)
    assert found.slate.items.max() < 5
    left = found.trace.filter(pl.col("item") == 49)["left_out"].unique().to_list()
    assert left == ["below the best 5 candidates"]


def test_excluded_items_make_room():
    cascade = Cascade({"a": Fixed(5, 6, 7), "b": Fixed(6)}, FilledQuotas({"a": 2, "b": 1}))
    exclude = np.array([[5, -1], [-1, -1], [6, 7]])
    found = cascade.recommend(REQUESTS, 3, exclude=exclude, trace=True)
    assert found.slate.items.tolist() == [[6, 7, -1], [5, 6, -1], [5, -1, -1]]
    reasons = found.trace.filter(found.trace["left_out"] == "excluded by the request")
    assert reasons.select("request", "item").rows() == [(0, 5), (2, 6), (2, 7)]


def test_trace_tells_every_candidate_s_way():
    ranking = Ranking(ByNumber(), RankAverage({"click": 1.0}))
    cascade = Cascade(
        {"a": Fixed(1, 2, 3, 4), "b": Fixed(9, 3)},
        merged("a", "b"),
        ranking,
        coarse=Ranking(ByNumber(), LinearFusion({"like": 1.0})),
        rerankers=[Caps({"parity": np.arange(10) % 2}, {"parity": 1})],
        budget=Budget(candidates=5, coarse=4, reranked=3),
    )
    found = cascade.recommend(Requests([0], [5]), 2, trace=True)
    trace = found.trace
    assert sorted(trace["item"].to_list()) == [1, 2, 3, 4, 9]
    way = {row["item"]: row for row in trace.iter_rows(named=True)}
    assert way[1]["left_out"] == "below the best 4 of coarse" and way[1]["rank: click"] is None
    assert way[3]["rank in a"] == 3 and way[3]["rank in b"] == 2
    shown = trace.filter(trace["place"].is_not_null())
    assert shown["item"].to_list() == found.slate.items[0].tolist() and shown["left_out"].null_count() == 2
    assert set(trace["left_out"].drop_nulls()) <= {
        "below the best 4 of coarse",
        "below the best 3 of rank",
        "left out by Caps",
    }
    assert (trace["left_out"].is_null() == trace["place"].is_not_null()).all()


def test_a_cap_behind_another_reranker_binds_and_keeps_its_order():
    slate = {"a": Fixed(*range(20))}
    kinds = np.arange(20) // 10
    vectors = np.random.default_rng(0).normal(size=(20, 4))
    ranking = Ranking(ByNumber(), LinearFusion({"like": -1.0}))  # items 0, 1, 2, … in this order

    def listed(*rerankers):
        return Cascade(slate, merged("a"), ranking, rerankers=rerankers).recommend(REQUESTS, 4).slate.items[0].tolist()

    diverse = MMR(vectors, 0.2)
    alone = listed(diverse)
    assert alone != sorted(alone)  # not the order of the scores
    assert listed(diverse, Caps({"kind": kinds}, {"kind": 100})) == alone
    capped = listed(MMR(vectors, 1.0), Caps({"kind": kinds}, {"kind": 2}))
    assert capped == [0, 1, 10, 11]


def test_the_trace_gives_the_reason_of_the_last_step_and_none_for_an_item_that_is_shown():
    cascade = Cascade({"a": Fixed(1, 2, 3, 4, 5), "b": Fixed(4, 3)}, merged("a", "b"), budget=Budget(retrieved=3))
    exclude = np.array([[1]])
    trace = cascade.recommend(Requests([0], [5]), 3, exclude=exclude, trace=True).trace
    assert trace is not None
    way = {row["item"]: row for row in trace.iter_rows(named=True)}
    assert way[1]["left_out"] == "excluded by the request" and way[4]["place"] is not None
    assert (trace["left_out"].is_null() == trace["place"].is_not_null()).all()


@pytest.mark.parametrize("seconds", [None, 1.0], ids=["unlimited", "limited"])
def test_a_request_without_candidates_gets_an_empty_list(seconds):
    ranking = Ranking(ByNumber(), LinearFusion({"click": 1.0}))
    cascade = Cascade({"a": Fixed()}, merged("a"), ranking, budget=Budget(ranking_seconds=seconds))
    assert cascade.recommend(REQUESTS, 5).slate.items.shape == (3, 0)


def test_a_candidate_without_a_fused_score_is_last():
    class Half:
        def fuse(self, predictions, requests):
            return np.where(predictions["like"] > 0.03, np.nan, predictions["like"])

    found = Cascade({"a": Fixed(5, 4, 3, 2)}, merged("a"), Ranking(ByNumber(), Half())).recommend(REQUESTS, 3)
    assert found.slate.items[:, :2].tolist() == [[3, 2]] * 3


def test_failing_and_late_retrievers_are_left_out_and_counted():
    released = threading.Event()

    class Late:
        calls = 0

        def retrieve(self, requests, k):
            type(self).calls += 1
            released.wait(20)
            return Slate(np.full((len(requests), 1), 8))

    cascade = Cascade(
        {"good": Fixed(1, 2), "bad": Failing(), "late": Late()},
        merged("good", "bad", "late"),
        budget=Budget(retrieval_seconds=0.3),
    )
    try:
        first, second = (cascade.recommend(REQUESTS, 2) for _ in range(2))
    finally:
        released.set()
    for found in (first, second):
        assert found.slate.items.tolist() == [[1, 2]] * 3 and list(found.late) == ["late"]
        assert "no connection" in found.failed["bad"]
    assert Late.calls == 1, "a call under way is not made again"
    assert cascade.pool.counts["late"] == {"asked": 2, "late": 2, "failed": 0}
    cascade.pool.close()


def test_nobody_answers():
    with pytest.raises(ResourceError, match="No retriever responded"):
        Cascade({"bad": Failing()}, merged("bad")).recommend(REQUESTS, 2)


def test_ranking_stops_when_its_time_is_up():
    slow = ByNumber(seconds=0.05)
    budget = Budget(ranking_seconds=0.01, ranking_block=2)
    ranking = Ranking(slow, LinearFusion({"click": 1.0}))
    found = Cascade({"a": Fixed(*range(1, 9))}, merged("a"), ranking, budget=budget).recommend(REQUESTS, 5)
    assert found.unranked.tolist() == [6] * 3 and set(found.slate.items.ravel().tolist()) == {1, 2}
    traced = Cascade({"a": Fixed(*range(1, 9))}, merged("a"), ranking, budget=budget).recommend(REQUESTS, 1, trace=True)
    assert traced.trace is not None
    reasons = dict(traced.trace.filter(pl.col("request") == 0).select("item", "left_out").iter_rows())
    assert set(reasons.values()) == {None, "below the best 1 of rank", "not reached by rank within the time limit"}
    assert {item for item, reason in reasons.items() if reason and "time" in reason} == set(range(3, 9))
    patient = Budget(ranking_seconds=60.0, ranking_block=3)
    whole = Cascade({"a": Fixed(*range(1, 9))}, merged("a"), ranking, budget=patient).recommend(REQUESTS, 5)
    at_once = Cascade({"a": Fixed(*range(1, 9))}, merged("a"), ranking).recommend(REQUESTS, 5)
    np.testing.assert_array_equal(whole.slate.items, at_once.slate.items)
    assert not whole.unranked.any()


def test_wrong_settings():
    with pytest.raises(ConfigError, match="has no retriever"):
        Cascade({}, merged())
