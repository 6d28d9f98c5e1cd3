"""The planted worlds, the order within a circumstance, the contracts, and what is not claimed."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from taiji.core.component import Requests
from taiji.core.errors import ConfigError, InputError
from taiji.metrics.independence import mutual_information, order_kept
from taiji.models.fusion.learnt_fusion import CANDIDATES, FusionRows
from taiji.models.fusion.quantile_alignment import QuantileAlignment, QuantileAlignmentSettings
from taiji.testing import check_component, check_deterministic, check_fuser, checkerboard

SETTINGS = QuantileAlignmentSettings(
    weights={"watch": 1.0}, numbers=("duration",), steps=300, batch=512, width=32, rate=0.02
)


@pytest.fixture(scope="module")
def fitted(biased):
    return QuantileAlignment(SETTINGS).fit(biased(seed=1)[0])


def test_planted_world(fitted, biased):
    rows, taste = biased(seed=2)
    watch, duration = rows.predictions["watch"].ravel(), rows.requests.columns["duration"].ravel()
    ranks = fitted.adjust(rows.predictions, rows.requests)["watch"].ravel()
    assert mutual_information(watch, duration) > 0.5
    assert abs(mutual_information(ranks, duration)) < 0.04
    assert np.abs(np.sort(ranks) - np.linspace(0, 1, len(ranks))).max() < 0.06
    assert order_kept(watch, ranks, np.floor(np.log(duration) * 200), bins=10_000) > 0.98
    before, after = (spearmanr(x, taste.ravel()).statistic for x in (watch, ranks))
    assert before < 0.5 and after > 0.97


def test_world_that_violates_independence(biased):
    """Taste depends on the duration here: the ranks still do not, and so tell less of the taste than where it does
    not."""
    rows, taste = biased(seed=3, dependence=0.6)
    fuser = QuantileAlignment(SETTINGS).fit(rows)
    ranks = fuser.adjust(rows.predictions, rows.requests)["watch"].ravel()
    assert abs(mutual_information(ranks, rows.requests.columns["duration"].ravel())) < 0.04
    assert 0.6 < spearmanr(ranks, taste.ravel()).statistic < 0.9


def test_order_under_the_same_circumstances_is_exact(fitted):
    random = np.random.default_rng(4)
    duration = np.repeat(np.exp(random.normal(4, 1, (300, 1))), 30, axis=1)
    watch = np.sort(duration * np.exp(random.normal(0, 1.5, duration.shape)), axis=1)
    requests = Requests(np.arange(300), np.arange(300), {"duration": duration})
    score = fitted.fuse({"watch": watch}, requests)
    assert (np.diff(score, axis=1) >= 0).all() and (score >= 0).all() and (score <= 1).all()


def test_binary_labels_carry_the_bias_on_where_predicted_chances_do_not():
    random = np.random.default_rng(5)
    kind = random.integers(0, 4, (600, 10))
    chance = np.clip(0.1 + 0.2 * kind + random.uniform(-0.09, 0.09, kind.shape), 0, 1)
    label = (random.random(kind.shape) < chance).astype(float)
    requests = Requests(np.arange(600), np.arange(600), {"kind": kind})
    settings = QuantileAlignmentSettings(categories=("kind",), steps=300, batch=512, width=32, rate=0.02)
    dependence = {}
    for name, values in (("label", label), ("chance", chance)):
        rows = FusionRows(requests, {"click": values}, {})
        ranks = QuantileAlignment(settings).fit(rows).adjust(rows.predictions, requests)["click"]
        dependence[name] = mutual_information(ranks.ravel(), kind.ravel())
    assert abs(dependence["chance"]) < 0.05 < 0.2 < dependence["label"]


def test_contracts(fitted, biased):
    rows, _ = biased(seed=6, slates=5)
    board = checkerboard()
    check_component(fitted, board, lambda made: made.fuse(rows.predictions, rows.requests))
    short = SETTINGS.model_copy(update={"steps": 3})
    check_deterministic(lambda seed: QuantileAlignment(short).fit(rows, seed=seed))
    users = board.users.with_columns(length=pl.int_range(pl.len()).cast(pl.Float64))
    dataset = board.with_users(users, board.events)
    of_users = QuantileAlignmentSettings(weights={"click": 1.0, "watch": 2.0}, numbers=("length",), steps=20)
    random = np.random.default_rng(0)
    logged = FusionRows(
        Requests(np.arange(6), np.arange(6)), {t: random.random((6, 50)) for t in ("click", "watch")}, {}
    )
    fuser = QuantileAlignment(of_users).fit(logged, dataset)
    check_fuser(fuser, ["click", "watch", "other"], monotone={"click": 1, "watch": 1}, tolerance=1e-12)
    padded = {"click": np.array([[0.5, np.nan]]), "watch": np.array([[0.5, np.nan]])}
    assert np.isfinite(fuser.fuse(padded, Requests([0], [0]))).tolist() == [[True, False]]


def test_columns_of_items_are_found_by_the_candidates():
    board = checkerboard()
    name = next(c for c in board.items.columns if board.items[c].dtype == pl.String)
    items = np.arange(12).reshape(2, 6) % board.n_items
    requests = Requests([0, 1], [0, 0], {CANDIDATES: items})
    settings = QuantileAlignmentSettings(categories=(name,), steps=2)
    fuser = QuantileAlignment(settings).fit(
        FusionRows(requests, {"click": np.random.default_rng(0).random((2, 6))}, {}), board
    )
    assert set(fuser.facts["categories"][0]) == set(board.items[name].to_numpy()[items].ravel())
    with pytest.raises(InputError, match="conditioning column"):
        fuser.fuse({"click": np.zeros((2, 6))}, Requests([0, 1], [0, 0]))


def test_wrong_settings():
    with pytest.raises(ConfigError, match="needs at least one conditioning column"):
        QuantileAlignment()
    with pytest.raises(ConfigError, match="increasing in"):
        QuantileAlignment(QuantileAlignmentSettings(weights={"a": -1.0}, numbers=("b",)))


def test_a_missing_category_is_as_everybody(biased):
    rows = biased(seed=4)[0]
    kind = np.where(np.arange(rows.predictions["watch"].size).reshape(rows.predictions["watch"].shape) % 3, "a", "b")
    kind = kind.astype(object)
    kind[0, 0] = None
    requests = Requests(rows.requests.user, rows.requests.time, {**rows.requests.columns, "kind": kind})
    settings = SETTINGS.model_copy(update={"categories": ("kind",), "steps": 20})
    fuser = QuantileAlignment(settings).fit(FusionRows(requests, rows.predictions, rows.labels))
    assert fuser.facts["categories"] == [["a", "b"]]
    other = kind.copy()
    other[0, 0] = "never seen"
    again = Requests(rows.requests.user, rows.requests.time, {**rows.requests.columns, "kind": other})
    found = fuser.fuse(rows.predictions, requests)
    assert np.isfinite(found).all() and np.array_equal(found, fuser.fuse(rows.predictions, again))
