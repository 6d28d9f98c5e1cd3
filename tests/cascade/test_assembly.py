"""Settings become components; what is wrong in them is named by its key."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from taiji.cascade.assembly import (
    deepest_category,
    make_cascade,
    make_fuser,
    make_merge,
    make_rerankers,
    make_retriever,
    whole_fuser,
)
from taiji.cascade.merging import FilledQuotas, FusedRanks
from taiji.cascade.settings import RecommendSettings
from taiji.config import Config
from taiji.core.component import DatasetFuser, Requests, Slate
from taiji.core.errors import ConfigError
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.models.fusion.monotone_ensemble import MonotoneEnsemble
from taiji.models.fusion.session_cells import SessionCells, SessionCellsSettings
from taiji.models.fusion.weighted import BesideMerge, LinearFusion, RankAverage
from taiji.models.rerank.device import DeviceGate, DeviceGateSettings, PlayedVideos
from taiji.models.rerank.diversity import DPP, MMR, Caps
from taiji.models.retrieval.creator import CreatorSide
from taiji.models.retrieval.popularity import Popularity
from taiji.pipeline.recommend_recipe import recommend_stages
from taiji.serving import recommender


def test_a_section_becomes_a_retriever():
    made = make_retriever("popular", {"model": "popularity", "half_life_days": 3, "weight": 2.0})
    assert isinstance(made, Popularity) and made.settings.half_life_days == 3
    creators = make_retriever("new", {"model": "taiji.models.retrieval.creator:CreatorSide", "capacity": 4})
    assert isinstance(creators, CreatorSide) and creators.settings.capacity == 4
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


@pytest.mark.parametrize("merge", ["rank_fusion", "quotas"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": -1},
        {"weight": 0},
        {"weight": "heavy"},
        {"weight": float("nan")},
        {"weight": True},
        {"quota": 0},
        {"quota": 2.9},
    ],
    ids=str,
)
def test_weights_and_quotas_are_checked_before_anything_is_fitted(merge, wrong):
    sections = {"a": {"model": "popularity", **wrong}}
    with pytest.raises(ConfigError, match=r"recommend\.retrievers\.a\."):
        make_merge(RecommendSettings(retrievers=sections, merge=merge), ["a"])
    config = Config(data={"source": "world:shop"}, recommend={"retrievers": sections, "merge": merge})
    with pytest.raises(ConfigError, match=r"recommend\.retrievers\.a\."):
        recommend_stages(config)


def test_rerankers(board):
    vectors = np.eye(board.n_items)
    for rerank, kind in (("mmr", MMR), ("dpp", DPP)):
        made = make_rerankers(RecommendSettings(rerank=rerank, most_per_category=2), board, vectors)
        assert [type(part) for part in made] == [kind, Caps]
    assert not make_rerankers(RecommendSettings(), board)
    with pytest.raises(ConfigError, match="cannot be created"):
        make_rerankers(RecommendSettings(rerank="best_of_lists"), board, vectors)
    assert sorted(set(deepest_category(board).tolist())) == [0, 1]


def test_a_saved_device_gate_is_a_reranker_of_a_recipe(board, tmp_path):
    pytest.importorskip("lightgbm")
    slate = Slate(np.tile(np.arange(6), (20, 1)), np.tile(-np.arange(6.0), (20, 1)))
    requests = Requests(np.arange(20), np.arange(20), {"network": np.where(np.arange(20) % 2, "poor", "good")})
    stalled = np.tile(np.arange(20)[:, None] % 2, (1, 6)) * 1.0
    settings = DeviceGateSettings(trees=10, least_rows=1, stall_cost=9.0, explore=0.0)
    gate = DeviceGate(settings).fit(PlayedVideos(requests, slate, stalled, stalled * 0 + 1))
    gate.save(tmp_path / "gate")
    named = {"folder": str(tmp_path / "gate"), "version": gate.version}
    recipe = RecommendSettings(
        retrievers={"popular": {"model": "popularity"}},
        rerank="taiji.models.rerank.device:saved_device_gate",
        rerank_settings=named,
    )
    retriever = make_retriever("popular", recipe.retrievers["popular"]).fit(board)
    cascade = make_cascade(recipe, board, {"popular": retriever}, None, np.eye(board.n_items))
    plain = cascade.recommend(Requests([0], [2**60], {"network": np.array(["poor"])}), 6).slate.items[0]
    pool = np.setdiff1d(np.arange(board.n_items), plain)[:3]
    context = {"network": np.array(["poor"]), "cached": pool[None]}
    found = cascade.recommend(Requests([0], [2**60], context), 6).slate
    assert sorted(set(found.items[0]) & set(pool)) == pool.tolist() and found.columns["prefetched"].sum() == 3


def test_a_cascade_runs(board):
    settings = RecommendSettings(retrievers={"popular": {"model": "popularity"}}, most_per_category=3)
    retriever = make_retriever("popular", settings.retrievers["popular"]).fit(board)
    found = make_cascade(settings, board, {"popular": retriever}, None).recommend(Requests([0], [2**60]), 6)
    assert np.bincount(found.slate.items[0] % 2).tolist() == [3, 3]


def test_a_fusion_is_named_and_fitted_before_it_is_composed(board):
    assert isinstance(make_fuser(RecommendSettings()), RankAverage)
    named = RecommendSettings(fusion="taiji.models.fusion.weighted:LinearFusion")
    assert isinstance(whole_fuser(named, None, board), LinearFusion)
    settings = RecommendSettings(fusion="monotone_ensemble", fusion_settings={"epochs": 1})
    fuser = make_fuser(settings)
    assert isinstance(fuser, MonotoneEnsemble) and fuser.settings.weights == {"click": 1.0}
    with pytest.raises(ConfigError, match="has not been fitted"):
        whole_fuser(settings, None, board)
    values = np.random.default_rng(0).random((4, 5))
    requests = Requests(np.arange(4), np.arange(4))
    fuser.fit(FusionRows(requests, {"click": values}, {"click": values}))
    found = whole_fuser(settings, fuser, board).fuse({"click": values, "merged": -values}, requests)
    np.testing.assert_allclose(found, 1.0)  # a rank and its opposite
    with pytest.raises(ConfigError, match="epoch"):
        make_fuser(RecommendSettings(fusion="monotone_ensemble", fusion_settings={"epoch": 1}))
    with pytest.raises(ConfigError, match=r"recommend\.fusion"):
        make_fuser(RecommendSettings(fusion="nothing"))


@pytest.mark.parametrize("beside", [{}, {"merged": 1.0}])
def test_a_saved_fusion_looks_up_users_in_the_dataset_and_in_a_service(board, tmp_path, beside):
    users = board.users.with_columns(age=pl.Series(np.linspace(0, 1, len(board.users))))
    dataset, random = replace(board, users=users), np.random.default_rng(0)
    values = {"click": random.random((40, 5))}
    requests = Requests(np.arange(40) % board.n_users, np.arange(40))
    cells = SessionCells(SessionCellsSettings(state=("age",), epochs=2))
    cells.fit(FusionRows(requests, values, values), dataset).policy.parameters += 0.5
    cells.save(tmp_path / "cells")
    settings = RecommendSettings(
        fusion="taiji.models.fusion.session_cells:saved_session_cells",
        fusion_weights={"click": 1.0, **beside},
        fusion_settings={"folder": str(tmp_path / "cells"), "version": cells.version},
    )
    merged = {name: random.random((40, 5)) for name in beside}
    made = whole_fuser(settings, None, dataset)
    expected = cells.fuse(values, requests)
    if beside:
        expected = BesideMerge(cells, 1.0, 1.0).fuse(values | merged, requests)
    np.testing.assert_array_equal(made.fuse(values | merged, requests), expected)
    assert isinstance(recommender._fuser(tmp_path, settings, dataset), DatasetFuser)
    assert recommender._fuser(tmp_path, RecommendSettings(), dataset) is None
