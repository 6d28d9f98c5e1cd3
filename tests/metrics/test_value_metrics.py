"""Metrics of counts, durations, grades and orders: by hand, and over tasks that a log declares."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import InputError
from taiji.data.tasks import CLICK, CONVERSION, Task
from taiji.metrics.intervals import estimate
from taiji.metrics.ranker_evaluation import evaluate_rankers, predicted_tasks
from taiji.metrics.ranking_metrics import Calibration, Rows
from taiji.metrics.task_metrics import METRICS, SHOWN_METRICS, head_title, split_key
from taiji.metrics.value_metrics import MAE, RMSE, XAUC, RequestXAUC, UserXAUC

WATCHED = Task(name="watch_seconds", kind="duration")
LIKED = Task(name="liked", kind="survey")
STARS = Task(name="stars", kind="ordinal", levels=5, given="click")
PLACE = Task(name="preference", kind="pairwise")


def table():
    """Users a, a, a, a, b, b; labels 4, 0, 2, 2 and 6, 6; two requests of a."""
    return Rows.of(
        ["a", "a", "a", "a", "b", "b"],
        [4, 0, 2, 2, 6, 6],
        [3, 1, 1, 4, 5, 9],
        [1, 1, 2, 2, 1, 1],
        kind="duration",
    )


def test_errors_by_hand():
    rows = table()
    np.testing.assert_allclose(MAE().calc_per_user(rows), [(1 + 1 + 1 + 2) / 4, (1 + 3) / 2])
    assert MAE().calc(rows) == pytest.approx(9 / 6)
    np.testing.assert_allclose(RMSE().calc_per_user(rows), [np.sqrt(7 / 4), np.sqrt(10 / 2)])
    assert RMSE().calc(rows) == pytest.approx(np.sqrt(17 / 6))
    assert Calibration().calc(rows) == pytest.approx(23 / 20)


def test_orders_by_hand():
    rows = table()
    # pairs within a: (4,0) right, (4,2) right, (4,2') wrong, (2,0) tied, (2',0) right
    np.testing.assert_allclose(UserXAUC().calc_per_user(rows), [3.5 / 5, np.nan])
    assert UserXAUC().calc(rows) == pytest.approx(3.5 / 5)
    # across users: b's 6 with 5 beats all four of a; b's 6 with 9 too
    assert XAUC().calc(rows) == pytest.approx((3.5 + 8) / (5 + 8))
    np.testing.assert_allclose(XAUC().calc_per_user(rows), [3.5 / 5, np.nan])
    # the first request of a has one pair, the second equal labels
    np.testing.assert_allclose(RequestXAUC().calc_per_user(rows), [1.0, np.nan])
    assert RequestXAUC().calc(rows) == 1.0


def test_requests_are_averaged_within_users_before_users():
    users, times = [0, 0, 0, 0, 1, 1], [1, 1, 2, 2, 1, 1]
    rows = Rows.of(users, [-1, 2, 1, 0, 5, 4], [0, 1, 0, 1, 3, 3], times, kind="pairwise")
    np.testing.assert_allclose(RequestXAUC().calc_per_user(rows), [0.5, 0.5])
    rows = Rows.of([*users, 2, 2], [-1, 2, 1, 0, 5, 4, 0, 1], [0, 1, 0, 1, 3, 3, 0, 1], [*times, 9, 9], kind="pairwise")
    assert RequestXAUC().calc(rows) == pytest.approx((0.5 + 0.5 + 1) / 3)


@pytest.mark.parametrize("metric", SHOWN_METRICS.values(), ids=list(SHOWN_METRICS))
def test_weights_repeat_users_and_intervals_hold_the_value(metric):
    random = np.random.default_rng(3)
    users, labels = np.repeat(np.arange(12), 20), random.integers(0, 2, 240)
    rows = Rows.of(users, labels, np.clip(0.4 + 0.2 * labels + 0.1 * random.normal(size=240), 0.01, 0.99), users % 3)
    statistic, weights = metric.statistic(rows), np.ones((1, 12))
    assert statistic(weights)[0] == pytest.approx(metric.calc(rows))
    assert statistic(3 * weights)[0] == pytest.approx(metric.calc(rows))
    weights[0, 5] = 2
    twice = np.flatnonzero(users == 5)
    order = np.r_[np.arange(240), twice]
    copies = np.r_[users, np.full(len(twice), 99)]
    assert statistic(weights)[0] == pytest.approx(
        metric.calc(Rows.of(copies, labels[order], rows.scores[order], np.r_[users % 3, twice * 0 + 2]))
    )
    found = estimate(statistic, resamples=200)
    assert found["low"] < found["value"] < found["high"] and found["n"] == 12


def test_labels_that_a_task_cannot_have_are_rejected():
    for kind, labels in (("survey", [0, 2]), ("duration", [0, -1]), ("count", [0, np.nan]), ("pairwise", [0, np.inf])):
        with pytest.raises(InputError, match="label is"):
            Rows.of([0, 1], labels, [0.1, 0.2], kind=kind)
    Rows.of([0, 1], [-3, 2.5], [0.1, 0.2], kind="pairwise")


def log(n=3000, seed=0):
    random = np.random.default_rng(seed)
    taste = random.normal(size=n)
    click = random.random(n) < 1 / (1 + np.exp(-taste))
    seconds = np.where(click, np.round(np.exp(taste + random.normal(size=n)), 1), 0.0)
    frame = pl.DataFrame(
        {
            "user": np.repeat(np.arange(n // 30), 30),
            "time": np.tile(np.repeat(np.arange(3), 10), n // 30),
            "click": click.astype(np.int8),
            "watch_seconds": seconds,
            "liked": pl.Series(np.where(random.random(n) < 0.1, (taste > 0).astype(float), np.nan)).fill_nan(None),
            "stars": pl.Series(np.where(click, np.clip(np.round(2 + taste), 0, 4), np.nan)).fill_nan(None),
            "preference": taste,
        }
    )

    def predict(noise):
        guess = taste + noise * random.normal(size=n)
        p = 1 / (1 + np.exp(-guess))
        return pl.DataFrame(
            {"click": p, "watch_seconds": np.exp(guess) * p, "liked": p, "stars": 2 + guess, "preference": guess}
        )

    return frame, {"none": predict(2.0), "taiji": predict(0.2)}


def test_every_declared_task_has_its_metrics():
    frame, predictions = log()
    rows = evaluate_rankers(frame, predictions, tasks=(CLICK, WATCHED, LIKED, STARS, PLACE), resamples=100)
    found = {(row["features"], row["metric"]): row for row in rows}
    metrics = [metric for arm, metric in found if arm == "taiji"]
    expected = {
        "click": "binary",
        "watch_seconds": "duration",
        "liked": "survey",
        "stars": "ordinal",
        "preference": "pairwise",
    }
    assert metrics == [f"{head} {metric.name}" for head, kind in expected.items() for metric in METRICS[kind]]
    for key in (
        "click auc",
        "watch_seconds xauc",
        "watch_seconds user_xauc",
        "liked auc",
        "stars xauc",
        "preference request_xauc",
    ):
        assert found["taiji", key]["difference"]["low"] > 0, key
    for key in ("watch_seconds mae", "stars mae"):
        assert found["taiji", key]["difference"]["high"] < 0, key
    clicked = frame["click"].to_numpy() == 1
    error = np.abs(predictions["taiji"]["stars"] - frame["stars"]).to_numpy()[clicked]
    assert found["taiji", "stars mae"]["value"] == pytest.approx(error.mean(), rel=1e-6)


def test_only_evaluated_predictions_are_asked_for():
    frame, predictions = log(600)
    with pytest.raises(InputError, match="lack a column"):
        evaluate_rankers(frame, predictions, tasks=(CLICK, CONVERSION), resamples=20)
    rows = evaluate_rankers(
        frame, {"none": predictions["none"].select("liked", "click")}, tasks=(CLICK, LIKED), resamples=20
    )
    assert {split_key(row["metric"])[0] for row in rows} == {"click", "liked"}
    everything = (CLICK, CONVERSION, WATCHED, LIKED, STARS, PLACE)
    assert predicted_tasks(everything, predictions.values()) == (CLICK, WATCHED, LIKED, STARS, PLACE)
    less = predictions | {"taiji": predictions["taiji"].drop("stars")}
    assert predicted_tasks(everything, less.values()) == (CLICK, WATCHED, LIKED, PLACE)


def test_predictions_have_names_for_people():
    assert [head_title(name) for name in ("click", "ctcvr", "watch_seconds")] == [
        "click",
        "click and conversion",
        "watch seconds",
    ]
    assert {metric.name for metrics in METRICS.values() for metric in metrics} == set(SHOWN_METRICS)
