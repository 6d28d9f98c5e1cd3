"""Settings become components; what is wrong in them is named by its key."""

import numpy as np
import pytest

from taiji.cascade.assembly import deepest_category, make_cascade, make_merge, make_rerankers, make_retriever
from taiji.cascade.merging import FilledQuotas, FusedRanks
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import Requests
from taiji.core.errors import ConfigError
from taiji.models.rerank.diversity import DPP, MMR, Caps
from taiji.models.retrieval.popularity import Popularity


def test_a_section_becomes_a_retriever():
    made = make_retriever("popular", {"model": "popularity", "half_life_days": 3, "weight": 2.0})
    assert isinstance(made, Popularity) and made.settings.half_life_days == 3
    foreign = make_retriever("x", {"model": "taiji.models.retrieval.popularity:Popularity"})
    assert isinstance(foreign, Popularity)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "has no model"),
        ({"model": "popularity", "half_live": 3}, "half_live"),
        ({"model": "popularity", "half_life_days": -1}, "half_life_days"),
        ({"model": "nothing"}, "recommend.retrievers.mine.model"),
        ({"model": "taiji.core.component:Slate"}, "not a retriever"),
    ],
    ids=["none", "unknown key", "out of range", "unknown", "another class"],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        make_retriever("mine", values)


def test_merges():
    sections = {"a": {"model": "popularity", "weight": 2}, "b": {"model": "ease", "quota": 7}}
    fused = make_merge(RecommendSettings(retrievers=sections), ["a", "b"])
    assert isinstance(fused, FusedRanks) and fused.weights == {"a": 2.0, "b": 1.0}
    filled = make_merge(RecommendSettings(retrievers=sections, merge="quotas"), ["a", "b"])
    assert isinstance(filled, FilledQuotas) and filled.quotas == {"a": 250, "b": 7}


def test_rerankers(board):
    vectors = np.eye(board.n_items)
    for rerank, kind in (("mmr", MMR), ("dpp", DPP)):
        made = make_rerankers(RecommendSettings(rerank=rerank, most_per_category=2), board, vectors)
        assert [type(part) for part in made] == [kind, Caps]
    assert not make_rerankers(RecommendSettings(), board)
    assert sorted(set(deepest_category(board).tolist())) == [0, 1]


def test_a_cascade_runs(board):
    settings = RecommendSettings(retrievers={"popular": {"model": "popularity"}}, most_per_category=3)
    retriever = make_retriever("popular", settings.retrievers["popular"]).fit(board)
    found = make_cascade(settings, board, {"popular": retriever}, None).recommend(Requests([0], [2**60]), 6)
    assert np.bincount(found.slate.items[0] % 2).tolist() == [3, 3]
