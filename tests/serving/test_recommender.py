"""A run of ``taiji recommend`` as it is served: lists online equal those of its cascade offline, whatever came
since."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.tiny import random_rows, write_features_run, write_shop

from taiji.cascade.assembly import make_cascade
from taiji.cascade.cascade import Cascade
from taiji.config import Config
from taiji.core.artifacts import read_json, write_json
from taiji.core.component import Requests, Slate
from taiji.core.errors import ArtifactError, ResourceError
from taiji.core.manifests import read_manifest, write_manifest
from taiji.data import time_split
from taiji.data.dataset import Dataset
from taiji.data.history import History
from taiji.data.user_subset import UserSubset
from taiji.features.other_run import StoredFeatures
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.models.fusion.monotone_ensemble import MonotoneEnsemble, MonotoneEnsembleSettings
from taiji.models.fusion.quantile_alignment import QuantileAlignment, QuantileAlignmentSettings
from taiji.models.ranking.train import load_ranker
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.pipeline.engine import Run
from taiji.pipeline.recommend_recipe import recommend_stages
from taiji.serving import backend
from taiji.serving import recommender as recommender_module
from taiji.serving.live_dataset import World
from taiji.serving.recommender import LiveFuser, LiveRequests, RankingRecommender, RunRecommender, recommender_of
from taiji.serving.releases import roll_back, roll_out
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.stores import open_store
from taiji.serving.traffic import of_run
from taiji.serving.types import (
    Event,
    FeatureRow,
    RankRequest,
    RecommendRequest,
    StoredRow,
    UserDirectory,
    UserHistory,
)
from taiji.testing import checkerboard

LATER = 1_700_000_000_000_000
RETRIEVERS = {
    "popular": {"model": "popularity", "half_life_days": 7},
    "together": {"model": "cooccurrence"},
    "towers": {"model": "two_towers", "width": 8, "hidden": 8, "epochs": 1},
    "sasrec": {"model": "sasrec", "width": 8, "layers": 1, "epochs": 1, "history": 10, "negatives": 0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recommend")
    config = Config.model_validate(
        {
            "data": {"source": str(write_shop(folder / "shop", users=20, items=40, events=1500))},
            "ranking": {"epochs": 1, "min_steps": 10, "dimension": 4, "hidden": [8]},
            "recommend": {
                "retrievers": RETRIEVERS,
                "depths": [5],
                "length": 5,
                "most_per_category": 3,
                "requests": 5,
                "budget": {"retrieved": 20, "candidates": 30, "reranked": 20},
            },
            "evaluation": {"resamples": 10},
        }
    )
    Run(folder / "small", config, recommend_stages(config), say=lambda text: None).execute()
    return folder / "small"


@pytest.fixture(scope="module")
def recommender(run: Path) -> RankingRecommender:
    found = backend.scorer(run, ServingSettings())
    assert isinstance(found, RankingRecommender)
    return found


def offline(run: Path, dataset: Dataset, *, rank: bool = True) -> Cascade:
    """The cascade as the run composed it, reading a dataset."""
    settings = Config.model_validate(read_json(run / "config.json")).recommend
    names = settings.retrievers
    retrievers = {n: CatalogueRetriever.load(run / f"retriever-{n}" / "retriever", dataset) for n in names}
    ranker: Any = load_ranker(run / "candidate_ranker" / "ranker", dataset) if rank else None
    return make_cascade(settings, dataset, retrievers, ranker)


def names(world: World, cascade: Cascade, user: int, k: int = 5) -> tuple[str, ...]:
    slate = cascade.recommend(Requests([user], [LATER]), k).slate
    return tuple(world.item_names[item] for item in slate.items[slate.mask].tolist())


def test_lists_online_equal_the_cascade_offline_alone_and_together(run: Path, recommender: RankingRecommender) -> None:
    world = recommender.world
    cascade = offline(run, world.dataset)
    users = list(world.users)[:6]
    together = recommender.recommend([RecommendRequest(UserHistory(user, LATER)) for user in users])
    for user, found in zip(users, together):
        assert found.items == names(world, cascade, world.users[user]) and len(found.items) == 5
        (alone,) = recommender.recommend([RecommendRequest(UserHistory(user, LATER))])
        assert alone.items == found.items
        np.testing.assert_allclose(alone.scores, found.scores, rtol=1e-5)
    assert set(together[0].sources) <= set(RETRIEVERS) and {"retrieve", "rank"} <= set(together[0].seconds)
    assert len({found.items for found in together}) > 1


def test_new_events_count_as_if_they_had_been_in_the_log(run: Path, recommender: RankingRecommender) -> None:
    world, name = recommender.world, "u5"
    events = tuple(Event(str(n), name, world.item_names[n], LATER - 100 + n) for n in range(4))
    history = UserHistory(name, LATER, events, 4)
    live = world.of([history])
    since = live.events.filter(pl.col("time") >= LATER - 100).with_columns(user=pl.lit(world.users[name], pl.UInt32))
    log = pl.concat([world.dataset.events, since], how="diagonal_relaxed").sort("time", "user")
    unranked = recommender_of(World(run), None).cascade
    unranked.ranking = None  # what a ranker knows about items is the run's, so the lists before it are compared
    online = RunRecommender(world, unranked, 5).recommend([RecommendRequest(history, 20)])[0].items
    expected = offline(run, replace(world.dataset, events=log), rank=False)
    assert online == names(world, expected, world.users[name], 20)
    before = RunRecommender(world, unranked, 5).recommend([RecommendRequest(UserHistory(name, LATER), 20)])[0].items
    assert online != before
    (ranked,) = recommender.recommend([RecommendRequest(history)])
    (old,) = recommender.recommend([RecommendRequest(UserHistory(name, LATER))])
    assert ranked.scores != old.scores


def test_a_stranger_gets_what_popularity_and_an_empty_history_give(run: Path, recommender: RankingRecommender) -> None:
    stranger, erased = UserHistory("never seen", LATER), UserHistory("u1", LATER, forgotten=True)
    found = recommender.recommend([RecommendRequest(stranger), RecommendRequest(erased)])
    assert found[0].items == found[1].items and len(found[0].items) == 5
    assert not recommender.has_user(stranger) and not recommender.has_user(erased)
    assert recommender.has_user(UserHistory("u1", LATER)), "a directory of users, which answers tell `known_user` by"
    assert isinstance(recommender, UserDirectory)
    traced = recommender.recommend([RecommendRequest(stranger, trace=True)])[0].trace
    assert traced and not any(row["rank in sasrec"] or row["rank in together"] for row in traced)


def test_excluded_items_stay_out_and_cost_no_candidates(recommender: RankingRecommender) -> None:
    user = UserHistory("u3", LATER)
    whole = recommender.recommend([RecommendRequest(user, 20)])[0].items
    request = RecommendRequest(user, 20, exclude=("nothing", *whole[:6], "nothing"))
    found, other = recommender.recommend([request, RecommendRequest(user, 20)])
    assert not set(found.items) & set(whole[:6]) and len(found.items) == len(whole)
    assert found.unknown == ("nothing",) and other.items == whole, "another request's exclusions changed this list"


def test_a_list_is_as_long_as_asked_where_there_are_as_many(recommender: RankingRecommender) -> None:
    user = UserHistory("u3", LATER)
    found = recommender.recommend([RecommendRequest(user, k) for k in (1, 7, 500)])
    assert [len(result.items) for result in found[:2]] == [1, 7]
    assert 7 < len(found[2].items) <= 20 and found[2].items[:1] == found[0].items


def test_what_follows_a_list_comes_along_and_does_not_change_it(run: Path) -> None:
    found = recommender_of(World(run), None)
    found.cascade.rerankers = ()
    user = UserHistory("u3", LATER)
    (plain,), (longer,) = (found.recommend([RecommendRequest(user, length)]) for length in (3, 6))
    spare, without = found.recommend([RecommendRequest(user, 3, spare=True), RecommendRequest(user, 3)])
    assert spare.items == plain.items == without.items and spare.spare is not None and without.spare is None
    assert spare.items + spare.spare.items == longer.items and len(longer.items) == 6
    assert len(spare.spare.scores) == len(spare.spare.sources) == 3
    (traced,) = found.recommend([RecommendRequest(user, 3, trace=True, spare=True)])
    assert traced.spare is None


def test_nothing_follows_a_list_that_is_chosen_as_a_whole(recommender: RankingRecommender) -> None:
    assert recommender.cascade.rerankers, "the recipe has a cap"
    (found,) = recommender.recommend([RecommendRequest(UserHistory("u3", LATER), 3, spare=True)])
    assert found.spare is None and len(found.items) == 3


def test_items_that_end_say_when(run: Path) -> None:
    world = World(run)
    ends = [LATER + number + 1 if number % 2 else None for number in range(world.dataset.n_items)]
    items = world.dataset.items.with_columns(available_until=pl.Series(ends, dtype=pl.Int64))
    user = UserHistory("u3", LATER)
    (never,) = recommender_of(world, None).recommend([RecommendRequest(user)])
    world.dataset = replace(world.dataset, items=items)
    made = recommender_of(world, None)
    (found,) = made.recommend([RecommendRequest(user)])
    expected = [ends[world.items[item]] or np.iinfo(np.int64).max for item in found.items]
    assert never.until == () and list(found.until) == expected and len(set(found.until)) > 1


def test_the_trace_says_of_every_candidate_what_became_of_it(recommender: RankingRecommender) -> None:
    users = [UserHistory("u2", LATER), UserHistory("u4", LATER)]
    first, second = recommender.recommend([RecommendRequest(user, trace=True) for user in users])
    for found in (first, second):
        assert found.trace is not None
        placed = {row["item"]: row["place"] for row in found.trace if row["place"]}
        assert tuple(sorted(placed, key=placed.get)) == found.items  # type: ignore[arg-type]
        assert all(row["left_out"] for row in found.trace if not row["place"])
    assert recommender.recommend([RecommendRequest(users[0])])[0].trace is None


def test_values_of_a_trace_that_json_cannot_write_are_null() -> None:
    values = [1.5, float("inf"), -float("inf"), float("nan"), None]
    rows = pl.DataFrame({"request": [0] * 5, "item": [1, 0, 1, 0, 1], "score": values, "place": [1, 2, 3, 0, 0]})
    found = recommender_module._trace(rows, ["a", "b"])
    assert [row["score"] for row in found] == [1.5, None, None, None, None]
    assert [row["item"] for row in found] == ["b", "a", "b", "a", "b"] and "request" not in found[0]


def test_a_context_that_does_not_fit_costs_nobody_else_a_list(recommender: RankingRecommender) -> None:
    user = UserHistory("u2", LATER)
    bad, good = recommender.recommend([RecommendRequest(user, context={"screen": "phone"}), RecommendRequest(user)])
    assert set(bad.wrong_context) == {"screen"} and not bad.items and len(good.items) == 5


def test_a_retriever_that_fails_is_left_out_and_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = recommender_of(World(run), None)

    def broken(*given: object) -> None:
        raise RuntimeError("broken")

    for name in list(RETRIEVERS)[1:]:
        monkeypatch.setattr(recommender.cascade.pool.retrievers[name], "retrieve", broken)
    (found,) = recommender.recommend([RecommendRequest(UserHistory("u2", LATER))])
    assert found.failed == tuple(list(RETRIEVERS)[1:]) and len(found.items) == 5 and set(found.sources) == {"popular"}
    monkeypatch.setattr(recommender.cascade.pool.retrievers["popular"], "retrieve", broken)
    with pytest.raises(ResourceError, match="No retriever responded"):
        recommender.recommend([RecommendRequest(UserHistory("u2", LATER))])


def test_late_retrievers_and_candidates_beyond_the_time_are_left_out_and_told(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(run)
    world.config["recommend"]["budget"] |= {"retrieval_seconds": 5.0, "ranking_seconds": 1e-9, "ranking_block": 8}
    recommender, answered = recommender_of(world, None), threading.Event()
    pool = recommender.cascade.pool
    retrieve = pool.retrievers["sasrec"].retrieve

    def slow(requests: Requests, k: int) -> Slate:
        answered.wait(10)
        return retrieve(requests, k)

    monkeypatch.setattr(pool.retrievers["sasrec"], "retrieve", slow)
    pool.seconds = 0.6
    users = [RecommendRequest(UserHistory("u2", LATER)), RecommendRequest(UserHistory("never seen", LATER))]
    found = recommender.recommend(users)
    answered.set()
    assert [result.late[-1:] for result in found] == [("sasrec",)] * 2 and "sasrec" not in found[0].sources
    assert all(len(result.items) == 5 and result.unranked > 0 for result in found)
    assert found[0].unranked > found[1].unranked, "a stranger has fewer candidates"
    pool.close()


def test_the_release_is_of_the_whole_cascade(run: Path, tmp_path: Path) -> None:
    release = backend.release(run)
    assert release.name == f"small-{release.model_version[:8]}" and not release.features and release.run == str(run)
    assert list(backend.rows(run)) == []
    users, items = of_run(run, ServingSettings(), limit=3)
    assert users == ["u0", "u1", "u10"] and len(items) == 3
    other = shutil.copytree(run, tmp_path / "small")
    assert backend.release(other).name == release.name, "the same cascade in another place is the same release"
    config = read_json(other / "config.json")
    config["recommend"]["fusion_weights"] = {"click": 1.0}
    write_json(other / "config.json", config)
    assert backend.release(other).name != release.name, "another composition is another release"
    changed = shutil.copytree(run, tmp_path / "changed" / "small")
    with (changed / "retriever-towers" / "retriever" / "weights.safetensors").open("ab") as weights:
        weights.write(b" ")
    with pytest.raises(ArtifactError, match="retriever-towers"):
        backend.release(changed)
    values = {
        name: value for name, value in read_manifest(changed / "data").items() if name in ("fingerprint", "facts")
    }
    write_manifest(changed / "retriever-towers", values)
    assert backend.release(changed).name != release.name, "a retriever of other weights is another release"
    shutil.rmtree(other / "retriever-together")
    with pytest.raises(ArtifactError, match="retriever-together"):
        backend.release(other)
    with pytest.raises(ArtifactError, match="not complete"):
        backend.scorer(other, ServingSettings())


def test_candidates_found_elsewhere_are_scored_by_the_ranker_of_the_cascade(
    run: Path, recommender: RankingRecommender
) -> None:
    world = recommender.world
    (result,) = recommender.score([RankRequest(UserHistory("u3", LATER), ("S1", "nothing", "S2"), None)])
    ranker: Any = load_ranker(run / "candidate_ranker" / "ranker", world.dataset)
    items = np.array([world.items["S1"], world.items["S2"]])
    expected = ranker.score_pairs(np.full(2, world.users["u3"]), items, np.full(2, LATER))
    assert result.without_features == [
        pytest.approx(expected[0], rel=1e-5),
        None,
        pytest.approx(expected[1], rel=1e-5),
    ]
    assert result.with_features is None


def test_without_a_ranker_lists_keep_the_order_of_the_merge(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "small")
    config = read_json(other / "config.json")
    write_json(other / "config.json", {**config, "recommend": {**config["recommend"], "rank": False}})
    shutil.rmtree(other / "candidate_ranker")
    found = backend.scorer(other, ServingSettings())
    assert type(found) is RunRecommender
    world = found.world
    expected = names(world, offline(other, world.dataset, rank=False), world.users["u3"])
    assert found.recommend([RecommendRequest(UserHistory("u3", LATER))])[0].items == expected


def test_a_cascade_is_rolled_out_and_back_as_a_whole(run: Path, tmp_path: Path) -> None:
    settings = ServingSettings(store=f"sqlite:{tmp_path / 'store.sqlite3'}")
    other = shutil.copytree(run, tmp_path / "other")
    first, second = roll_out(run, settings), roll_out(other, settings)
    store = open_store(settings)
    assert store.releases().active == second.name != first.name and set(store.releases().live) == {
        first.name,
        second.name,
    }
    assert roll_back(settings) == first.name and store.releases().previous == second.name
    scorers = Scorers(store, lambda folder: backend.scorer(folder, settings))
    scorers.refresh()
    assert scorers.recommends(first.name) and scorers.recommends(second.name)
    assert (scorers.state, scorers.recommender_state) == ("ready", "ready")
    request = RecommendRequest(UserHistory("u1", LATER))
    lists = scorers.recommend([(first.name, request), (second.name, request)])
    assert lists[0].items == lists[1].items and len(lists[0].items) == 5


@pytest.fixture(scope="module")
def featured(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose ranker reads features of users u0 to u9."""
    folder, dataset = tmp_path_factory.mktemp("featured"), World(run).dataset
    config = read_json(run / "config.json")
    first, _, _, test, _ = time_split(dataset, Config.model_validate(config).split).bounds
    rows = random_rows(dataset, [(first + test) // 2]).filter(pl.col("user_id").str.len_chars() == 2)
    config["recommend"] |= {
        "retrievers": {name: RETRIEVERS[name] for name in ("popular", "together")},
        "features": str(write_features_run(folder / "other", dataset, rows, test)),
        "fusion_weights": {"click": 1.0},
    }
    made = Config.model_validate(config)
    Run(folder / "small", made, recommend_stages(made), say=lambda text: None).execute()
    return folder / "small"


def predicted(trace: list[dict[str, Any]], names: Sequence[str] | None = None) -> dict[str, float]:
    """The clicks that the ranker predicted, by item; ``names`` where the trace has numbers."""
    rows = [row for row in trace if row["rank: click"] is not None]
    return {row["item"] if names is None else names[row["item"]]: row["rank: click"] for row in rows}


def test_lists_with_features_equal_those_offline_with_the_same_row(featured: Path) -> None:
    recommender = backend.scorer(featured, ServingSettings())
    assert isinstance(recommender, RankingRecommender)
    world, kept = recommender.world, StoredFeatures.load(featured / "candidate_ranker")
    assert kept is not None
    cascade = offline(featured, world.dataset)
    clicks = {}
    for user, read in (("u3", "run"), ("u4", "run"), ("u12", "none")):
        request = RecommendRequest(UserHistory(user, LATER), trace=True)
        (result,) = recommender.recommend([request])
        requests = kept.joined_to(Requests([world.users[user]], [LATER]))
        expected = cascade.recommend(requests, 5, trace=True)
        assert expected.trace is not None and result.trace is not None and result.features == read
        assert result.items == tuple(world.item_names[item] for item in expected.slate.items[0].tolist())
        clicks[user] = predicted(result.trace)
        assert clicks[user] == pytest.approx(predicted(expected.trace.to_dicts(), world.item_names), rel=1e-4)
    asked = [RecommendRequest(UserHistory(user, LATER), trace=True) for user in clicks]
    for user, result in zip(clicks, recommender.recommend(asked)):
        assert predicted(result.trace or []) == pytest.approx(clicks[user], rel=1e-4)
    bare = cascade.recommend(Requests([world.users["u3"]], [LATER]), 5, trace=True).trace
    assert bare is not None
    assert predicted(bare.to_dicts(), world.item_names) != pytest.approx(clicks["u3"], rel=1e-3)


def test_the_row_of_the_service_counts_where_its_quantiser_is_the_rankers(featured: Path) -> None:
    recommender = backend.scorer(featured, ServingSettings())
    assert isinstance(recommender, RankingRecommender) and recommender.rows is not None
    user = UserHistory("u3", LATER)
    run = recommender.rows.of(user)
    assert run is not None
    stored = FeatureRow("u3", 5, (3, 0, 1), None, ("S1", "S2"), "m-one", "q-one", 5, 0)
    row = json.loads(StoredRow("r", 1, stored.head(), stored.tail()).body())
    asked = [
        RecommendRequest(user, features=features)
        for features in (row, {**row, "quantizer_version": "q-two"}, None, run, {**row, "ids": run["ids"]})
    ]
    asked = [replace(request, trace=True) for request in asked]
    found = [recommender.recommend([request])[0] for request in asked]
    assert [result.features for result in found] == ["request", "run", "run", "request", "request"]
    assert found[1].trace == found[2].trace == found[3].trace, "a row of another quantiser changed the list"
    assert found[0].trace != found[2].trace
    (scored,) = recommender.score([RankRequest(user, ("S1", "S2"), row)])
    assert scored.with_features is not None and scored.with_features != scored.without_features


def test_rows_of_the_run_are_read_of_nobody_who_was_erased_and_not_before_they_were_there(featured: Path) -> None:
    recommender = backend.scorer(featured, ServingSettings())
    assert isinstance(recommender, RankingRecommender) and recommender.rows is not None
    kept = StoredFeatures.load(featured / "candidate_ranker")
    assert kept is not None
    available = int(kept.table["available_at"].max())  # type: ignore[arg-type]
    rows = recommender.rows
    assert rows.of(UserHistory("u3", available + 1)) and not rows.of(UserHistory("u3", available))
    assert not rows.of(UserHistory("u3", LATER, forgotten=True))
    assert not rows.of(UserHistory("u12", LATER)) and not rows.of(UserHistory("never seen", LATER))


def test_the_release_tells_what_the_ranker_read_and_not_where_it_lay(featured: Path, tmp_path: Path) -> None:
    release = backend.release(featured)
    assert not release.features, "there is nobody to write them"
    other = shutil.copytree(featured, tmp_path / "small")
    config = read_json(other / "config.json")
    config["recommend"]["features"] = "moved/elsewhere"
    write_json(other / "config.json", config)
    assert backend.release(other).name == release.name


def served(dataset: Dataset, users: Sequence[int], columns: dict[str, Any] | None = None) -> LiveRequests:
    """Requests of a service for users of a dataset; −1 for a new user."""
    parts = [dataset.history.before(max(user, 0), LATER if user >= 0 else 0) for user in users]
    offsets = np.cumsum([0, *(len(items) for items, _ in parts)])
    items, times = (np.concatenate([part[side][::-1] for part in parts]) for side in (0, 1))
    live = UserSubset(dataset, np.array(users), [f"u{user}" for user in users], History(offsets, items, times))
    past: Any = None
    return LiveRequests(np.arange(len(users)), np.full(len(users), LATER), columns or {}, live=live, past=past)


def test_a_fitted_fusion_reads_the_users_of_the_requests() -> None:
    board, random = checkerboard(), np.random.default_rng(0)
    tier = ["old" if user % 2 else "young" for user in range(board.n_users)]
    dataset = replace(board, users=board.users.with_columns(tier=pl.Series(tier)))
    user, values = random.integers(0, board.n_users, 100), random.random((2, 100, 6))
    values[0] = np.where((user % 2 == 1)[:, None], 0.35 + 0.01 * values[0], values[0])
    requests = Requests(user, np.arange(100), {"screen": np.where(user % 3, "tv", "phone")})
    rows = FusionRows(requests, {"click": values[0], "share": values[1]}, {"click": values[0] > 0.5})
    weights = {"click": 1.0, "share": 1.0}
    by_tier = QuantileAlignment(QuantileAlignmentSettings(weights=weights, categories=("tier", "screen"), steps=50))
    by_user = MonotoneEnsemble(MonotoneEnsembleSettings(weights=weights, users=board.n_users, epochs=3, batch=20))
    for fuser in (by_tier, by_user):
        fuser.fit(rows, dataset)
        asked = {name: prediction[:1] for name, prediction in rows.predictions.items()}
        for person in (4, 5):
            screen = {"screen": np.array(["tv"])}
            offline = fuser.fuse(asked, Requests([person], [LATER], screen))
            np.testing.assert_array_equal(LiveFuser(fuser).fuse(asked, served(dataset, [person], screen)), offline)
            both = {name: np.repeat(prediction, 2, axis=0) for name, prediction in asked.items()}
            second = LiveFuser(fuser).fuse(both, served(dataset, [0, person], {"screen": np.array(["tv"] * 2)}))[1:]
            np.testing.assert_allclose(second, offline, rtol=1e-12)
        strange = LiveFuser(fuser).fuse(asked, served(dataset, [-1]))  # a new user, and no context
        assert np.isfinite(strange).all()
    first, again = (served(dataset, users).same_user for users in ([3, -1], [-1, 3]))
    assert first.tolist() == again[::-1].tolist() and first[0] == 3 and first[1] >= board.n_users
