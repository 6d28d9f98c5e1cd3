"""Rankers with known quality on the same exposures."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.small_shops import build, micros

from taiji.core.errors import TaijiError
from taiji.metrics.ranker_evaluation import evaluate_rankers, head_rows, sparsest_third
from taiji.metrics.ranking_metrics import auc, row_log_loss


def world(seed=0, users=60, trips=4, shown=12):
    rng = np.random.default_rng(seed)
    rows = users * trips * shown
    user, time = (
        np.repeat(np.arange(users), trips * shown),
        np.tile(np.repeat(np.arange(trips), shown), users),
    )
    taste = rng.normal(size=rows)
    click = rng.random(rows) < 1 / (1 + np.exp(1.5 - 1.5 * taste))
    conversion = click & (rng.random(rows) < 0.4)
    frame = pl.DataFrame(
        {
            "user": user,
            "item": rng.integers(50, size=rows),
            "time": time,
            "click": click.astype(np.int8),
            "conversion": conversion.astype(np.int8),
        }
    )

    def predict(noise):
        p = 1 / (1 + np.exp(1.5 - 1.5 * (taste + noise * rng.normal(size=rows))))
        return pl.DataFrame({"click": p, "ctcvr": 0.4 * p})

    return frame, {"none": predict(1.5), "history_mean": predict(0.8), "taiji": predict(0.1)}


def test_better_rankers_are_found_better_everywhere():
    frame, predictions = world()
    rows = evaluate_rankers(frame, predictions, np.arange(20), resamples=200)
    found = {(r["features"], r["group"], r["metric"]): r for r in rows}
    for group in ("all", "sparse"):
        for metric in ("click auc", "click user_auc", "click ndcg@10", "ctcvr auc"):
            assert found["taiji", group, metric]["difference"]["low"] > 0
        assert found["taiji", group, "click log_loss"]["difference"]["high"] < 0
        assert found["taiji", group, "click auc"]["competitors"][0]["against"] == "history_mean"
        assert "competitors" not in found["history_mean", group, "click auc"]
    assert found["none", "all", "click auc"]["n"] == 60 and found["none", "sparse", "click auc"]["n"] == 20
    assert "difference" not in found["none", "all", "click auc"]


def test_values_are_those_of_the_plain_metrics():
    frame, predictions = world(1)
    found = {(r["features"], r["metric"]): r["value"] for r in evaluate_rankers(frame, predictions, resamples=20)}
    labels, scores = frame["click"].to_numpy(), predictions["taiji"]["click"].to_numpy()
    assert found["taiji", "click auc"] == pytest.approx(auc(labels, scores))
    assert found["taiji", "click log_loss"] == pytest.approx(row_log_loss(labels, scores).mean())
    bought = labels * frame["conversion"].to_numpy()
    assert found["taiji", "ctcvr auc"] == pytest.approx(auc(bought, predictions["taiji"]["ctcvr"].to_numpy()))
    assert found["taiji", "click calibration"] == pytest.approx(scores.sum() / labels.sum())


def test_two_equal_arms_differ_by_exactly_nothing():
    frame, predictions = world(2)
    rows = evaluate_rankers(frame, {"none": predictions["none"], "twin": predictions["none"]}, resamples=50)
    assert all(
        (r["difference"]["value"], r["difference"]["low"], r["difference"]["high"]) == (0, 0, 0)
        for r in rows
        if r["features"] == "twin"
    )


def test_groups_of_rows_are_judged_on_their_own():
    frame, predictions = world(3)
    mask = (frame["item"] < 10).to_numpy()
    rows = evaluate_rankers(frame, predictions, groups={"cold items": mask}, resamples=20)
    found = {(r["group"], r["features"], r["metric"]): r["value"] for r in rows}
    expected = auc(frame["click"].to_numpy()[mask], predictions["taiji"]["click"].to_numpy()[mask])
    assert found["cold items", "taiji", "click auc"] == pytest.approx(expected)


def test_unripe_clicks_take_their_non_clicks_with_them():
    frame = pl.DataFrame(
        {"time": [1, 1, 2, 2, 3, 3], "click": [1, 0, 1, 0, 1, 0], "conversion": [1, 0, None, 0, None, 0]}
    )
    frame = frame.with_columns(pl.lit(0).alias("user"))

    def judged(rows):
        kept = {part.head: part.chosen.tolist() for part in head_rows(rows, {})}.get("ctcvr", [])
        return [row in kept for row in range(len(rows))]

    assert judged(frame) == [True, True, False, False, False, False]
    later = frame.with_columns(pl.Series("conversion", [1, 0, None, 0, 0, 0]))
    assert judged(later) == [True, True, False, True, True, True]
    assert not any(judged(frame.with_columns(pl.lit(None, dtype=pl.Int8).alias("conversion"))))


def test_without_conversions_only_clicks_are_judged():
    frame, predictions = world(4)
    rows = evaluate_rankers(
        frame.with_columns(pl.lit(None, dtype=pl.Int8).alias("conversion")), predictions, resamples=20
    )
    assert {r["metric"].split()[0] for r in rows} == {"click"}


def test_the_sparsest_third_is_decided_before_the_test():
    log = [(u, 0, 1) for u in range(6)] + [(u, 1, 2) for u in (1, 3, 5)] + [(0, k % 5, 20) for k in range(30)]
    assert sparsest_third(build(log), [5, 4, 3, 2, 1, 0, 0], micros(10)).tolist() == [0, 2]


def test_wrong_frames_are_refused():
    frame, predictions = world(5)
    with pytest.raises(TaijiError, match="one prediction per exposure"):
        evaluate_rankers(frame, {"none": predictions["none"].head(3)})
    with pytest.raises(TaijiError, match="lack a column"):
        evaluate_rankers(frame, {"none": predictions["none"].drop("ctcvr")})
