"""Studies: resumable cells, negative controls that stay in the past, intervals over users and seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.data.event_columns import EventColumns
from taiji.data.tasks import CLICK, CONVERSION, Task
from taiji.experiments.study import (
    Arm,
    ablation,
    aggregate,
    another_users,
    built_in,
    control_findings,
    over_users_and_seeds,
    run_cells,
    shuffled,
)
from taiji.metrics.ranker_evaluation import evaluate_rankers
from taiji.metrics.ranking_metrics import auc
from taiji.models.ranking.settings import RankerSettings
from taiji.testing import checkerboard


def world(seed=0, users=40):
    rng = np.random.default_rng(seed)
    rows = users * 30
    user, time = np.repeat(np.arange(users), 30), np.tile(np.repeat([10, 20, 30], 10), users)
    code = rng.integers(0, 2, size=users)
    item = rng.integers(0, 2, size=rows)
    click = rng.random(rows) < np.where(code[user] == item, 0.4, 0.1)
    frame = pl.DataFrame(
        {
            "user": user.astype(np.uint32),
            "item": item.astype(np.uint32),
            "time": time,
            "click": click.astype(np.int8),
            "conversion": np.zeros(rows, dtype=np.int8),
        }
    )
    table = pl.DataFrame(
        {
            "user": np.arange(users, dtype=np.uint32),
            "as_of": np.arange(users) % 7,
            "ids": [[int(c)] for c in code],
            "neighbour_items": [[int(c), 1] for c in code],
        },
        schema_overrides={
            "ids": pl.List(pl.UInt16),
            "neighbour_items": pl.List(pl.UInt32),
            "as_of": pl.Int64,
        },
    )
    return frame, table


class Reader:
    """Says 0.4 when the item is the code in ``ids``, plus noise that depends on the seed."""

    def __init__(self, seed):
        self.seed = seed

    def predict(self, exposures):
        noise = 0.02 * np.random.default_rng([self.seed, len(exposures)]).normal(size=len(exposures))
        if "ids" in exposures.columns:
            code = exposures["ids"].list.first().fill_null(9).to_numpy()
            click = np.where(code == exposures["item"].to_numpy(), 0.4, 0.1) + noise
        else:
            click = 0.25 + noise
        return pl.DataFrame({"click": click, "ctcvr": click * 0.5})


class Trainer:
    def __init__(self):
        self.calls = []

    def __call__(self, exposures, seed):
        self.calls.append((tuple(exposures.columns), seed))
        return Reader(seed)


def study(folder, arms, trainer, seeds=(0, 1, 2), version="1"):
    frame, _ = world()
    cells = run_cells(frame, frame, arms, seeds, trainer, folder, trainer_version=version)
    return frame, cells


def test_cells_are_kept_and_only_missing_or_changed_ones_are_made(tmp_path):
    _, table = world()
    arms, trainer = [Arm("none"), Arm("real", table)], Trainer()
    _, cells = study(tmp_path, arms, trainer)
    assert len(trainer.calls) == 6 and [c["arm"] for c in cells] == ["none", "real"] * 3
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    study(tmp_path, arms, trainer)
    assert len(trainer.calls) == 6
    (tmp_path / cells[3]["predictions"].replace("parquet", "json")).unlink()
    study(tmp_path, arms, trainer)
    assert len(trainer.calls) == 7
    assert {n: b for n, b in before.items() if n.endswith("parquet")} == {
        p.name: p.read_bytes() for p in tmp_path.glob("*.parquet")
    }
    study(tmp_path, [Arm("none"), Arm("real", table.with_columns(pl.col("as_of") - 1))], trainer)
    assert len(trainer.calls) == 10
    study(tmp_path, arms, trainer, version="2")
    assert len(trainer.calls) == 16


def test_real_features_gain_and_null_controls_do_not(tmp_path):
    _, table = world()
    frame, cells = study(tmp_path, ablation({"history_mean": table.head(20), "taiji": table}, "taiji"), Trainer())
    rows = {
        (r["features"], r["metric"]): r for r in aggregate(cells, tmp_path, frame, resamples=200) if r["group"] == "all"
    }
    assert rows["taiji", "click auc"]["difference"]["low"] > 0.1
    assert (
        rows["taiji", "click auc"]["competitors"][0]["against"] == "history_mean"
        and rows["taiji", "click auc"]["competitors"][0]["low"] > 0
    )
    for control in ("negative control: another user's", "negative control: shuffled"):
        gap = rows[control, "click auc"]["difference"]
        assert gap["low"] <= 0 <= gap["high"] or gap["high"] < 0
    assert rows["taiji, cross-user only", "click auc"]["value"] < 0.55
    assert rows["taiji", "click auc"]["seeds"] == 3 and len(rows["taiji", "click auc"]["per_seed"]) == 3


def test_the_mean_over_seeds_is_that_of_single_runs(tmp_path):
    _, table = world()
    frame, cells = study(tmp_path, [Arm("none"), Arm("real", table)], Trainer(), seeds=(5, 6))
    row = next(
        r
        for r in aggregate(cells, tmp_path, frame, resamples=20)
        if (r["features"], r["metric"]) == ("real", "click auc")
    )
    values = [
        auc(frame["click"].to_numpy(), pl.read_parquet(tmp_path / c["predictions"])["click"].to_numpy())
        for c in cells
        if c["arm"] == "real"
    ]
    assert row["per_seed"] == pytest.approx(values) and row["value"] == pytest.approx(np.mean(values))


def test_one_seed_gives_the_rows_of_a_single_run(tmp_path):
    _, table = world()
    frame, cells = study(tmp_path, [Arm("none"), Arm("real", table)], Trainer(), seeds=(3,))
    single = {c["arm"]: pl.read_parquet(tmp_path / c["predictions"]).cast(pl.Float64) for c in cells}
    expected = evaluate_rankers(frame, single, resamples=100)
    found = aggregate(cells, tmp_path, frame, resamples=100)
    for a in expected:
        b = next(
            r for r in found if (r["features"], r["group"], r["metric"]) == (a["features"], a["group"], a["metric"])
        )
        assert b["value"] == pytest.approx(a["value"], nan_ok=True)
        assert a.get("difference", {}).get("low") == pytest.approx(b.get("difference", {}).get("low"))


def test_intervals_over_five_seeds_cover():
    """User and seed effects of equal size; users alone would cover far less."""
    rng, both, only_users, trials, seeds, users = np.random.default_rng(0), 0, 0, 300, 5, 40
    for trial in range(trials):
        user, seed = rng.normal(size=users), rng.normal(size=seeds) / np.sqrt(users)
        cell = seed[:, None] + user
        weights = rng.multinomial(users, np.full(users, 1 / users), size=200) / users
        draws = (weights @ cell.T)[:, :, None]
        _, spread = over_users_and_seeds(cell.mean(axis=1)[:, None], draws, trial)
        low, high = np.quantile(spread[:, 0], [0.025, 0.975])
        both += low <= 0 <= high
        low, high = np.quantile(draws.mean(axis=1)[:, 0], [0.025, 0.975])
        only_users += low <= 0 <= high
    assert both / trials > 0.9
    assert only_users / trials < both / trials


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=20), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_shuffling_never_draws_from_the_future(rows, seed):
    table = pl.DataFrame(
        {
            "user": [u for u, _ in rows],
            "as_of": [t for _, t in rows],
            "ids": [[t] for _, t in rows],
            "neighbour_items": [[t, 0] for _, t in rows],
        }
    )
    mixed = shuffled(table, seed)
    assert mixed.select("user", "as_of").equals(table.select("user", "as_of"))
    assert (mixed["ids"].list.first() <= mixed["as_of"]).all() and (
        mixed["neighbour_items"].list.first() <= mixed["as_of"]
    ).all()


@given(st.lists(st.integers(0, 50), min_size=2, max_size=30, unique=True), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_nobody_keeps_the_own_features(users, seed):
    table = pl.DataFrame(
        {"user": users * 2, "as_of": [1] * len(users) + [2] * len(users), "ids": [[u] for u in users * 2]}
    )
    given_away = another_users(table, seed)
    assert (given_away["user"] != given_away["ids"].list.first()).all()
    assert sorted(given_away["user"].to_list()) == sorted(users * 2)


def test_wrong_studies_are_explained(tmp_path):
    _, table = world()
    with pytest.raises(TaijiError, match="main table"):
        ablation({"base": table}, "popo")
    with pytest.raises(TaijiError, match="the same name"):
        study(tmp_path, [Arm("none"), Arm("none")], Trainer())
    frame, cells = study(tmp_path, [Arm("none"), Arm("real", table)], Trainer())
    with pytest.raises(TaijiError, match="real with seed 2"):
        aggregate(cells[:-1], tmp_path, frame)
    with pytest.raises(TaijiError, match="two users"):
        another_users(table.head(1))


def test_the_version_of_a_trainer_covers_settings_labels_and_every_table():
    dataset, settings = checkerboard(6, 6, 2), RankerSettings()
    first = built_in(dataset, settings)[1]
    assert built_in(dataset, settings)[1] == first
    label = EventColumns(labels=(Task(name="opens", kind="count"),))
    events = dataset.events.with_columns(opens=pl.lit(1))
    others = [
        replace(dataset, items=dataset.items.with_columns(category_l1=pl.lit("else"))),
        replace(dataset, events=dataset.events.with_columns(time=pl.col("time") + 1)),
        replace(dataset, events=events, event_columns=label),
        replace(
            dataset,
            events=events,
            event_columns=EventColumns(labels=(label.labels[0].model_copy(update={"weight": 2.0}),)),
        ),
    ]
    versions = [built_in(other, settings)[1] for other in others] + [built_in(dataset, RankerSettings(epochs=2))[1]]
    assert len({first, *versions}) == 6
    roles = [EventColumns(context=("opens",)), EventColumns(bias=("opens",))]
    assert len({built_in(replace(dataset, events=events, event_columns=role), settings)[1] for role in roles}) == 2


def test_the_built_in_ranker_fits_in(tmp_path):
    from taiji.data.dataset import Dataset
    from taiji.models.ranking.settings import RankerSettings
    from taiji.world.settings import ShopSettings
    from taiji.world.shop import Shop

    dataset = Dataset.from_tables(Shop(ShopSettings(users=60, tail=80, promoted=8, shown=6), 0).tables())
    exposed = dataset.events.filter("exposed")
    cut = exposed["time"].quantile(0.7)
    train, test = exposed.filter(pl.col("time") < cut), exposed.filter(pl.col("time") >= cut)
    trainer, version = built_in(dataset, RankerSettings(epochs=1))
    cells = run_cells(train, test, [Arm("none")], [0], trainer, tmp_path, trainer_version=version)
    assert cells[0]["rows"] == len(test)


@pytest.mark.parametrize(
    ("metric", "low", "high", "gain", "word"),
    [
        ("click auc", 0.001, 0.01, True, "GAIN"),
        ("click auc", -0.01, 0.01, False, "no gain"),
        ("click auc", -0.01, -0.001, False, "loss"),
        ("ctcvr log_loss", -0.01, -0.001, True, "GAIN"),
        ("ctcvr log_loss", 0.001, 0.01, False, "loss"),
    ],
    ids=["auc up", "auc unclear", "auc down", "log loss down", "log loss up"],
)
def test_a_control_that_gains_is_called_out(metric, low, high, gain, word):
    difference = {"against": "none", "value": (low + high) / 2, "low": low, "high": high}
    row = {"features": "negative control: shuffled", "group": "all", "metric": metric, "difference": difference}
    others = [row | {"group": "sparse"}, row | {"features": "popo"}, row | {"metric": "click calibration"}]
    (found,) = control_findings([row, *others])
    assert found["gain"] is gain
    assert word in found["verdict"]


def test_a_control_of_too_few_users_is_not_said_to_gain_nothing():
    difference = {
        "against": "none",
        "value": 0.1,
        "low": None,
        "high": None,
        "reason": "too few users (4; at least 10 are needed)",
    }
    row = {"features": "negative control: shuffled", "group": "all", "metric": "click auc", "difference": difference}
    (found,) = control_findings([row])
    assert found["gain"] is False and found["verdict"] == "not shown: too few users (4; at least 10 are needed)"


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_intervals_over_few_seeds_cover(n_seeds):
    """Seeds differ much more than users here: with 2 of them plain resampling covers 61 %."""
    rng, covered, trials = np.random.default_rng(1), 0, 600
    for trial in range(trials):
        values = rng.normal(size=(n_seeds, 1))
        draws = values + 0.01 * rng.normal(size=(400, n_seeds, 1))
        _, spread = over_users_and_seeds(values, draws, trial)
        low, high = np.quantile(spread[:, 0], [0.025, 0.975])
        covered += low <= 0 <= high
    assert covered / trials > 0.9


def test_further_labels_are_kept_and_evaluated_where_every_ranker_predicts_them(tmp_path):
    frame, table = world()
    tasks = (CLICK, CONVERSION, Task(name="watch_seconds", kind="duration"), Task(name="liked", kind="survey"))
    frame = frame.with_columns(
        watch_seconds=pl.col("click") * pl.col("item") * 9.0, liked=pl.when(pl.col("item") == 0).then(pl.col("click"))
    )

    def trainer(exposures, seed):
        reader, likes = Reader(seed), "ids" in exposures.columns

        class Further:
            def predict(self, rows):
                told = reader.predict(rows)
                told = told.with_columns(watch_seconds=9 * told["click"], sure=told["click"])
                return told.with_columns(liked=told["click"]) if likes else told

        return Further()

    arms = [Arm("none"), Arm("taiji", table)]
    cells = run_cells(frame, frame, arms, (0, 1), trainer, tmp_path, trainer_version="1", tasks=tasks)
    kept = [pl.read_parquet(tmp_path / cell["predictions"]).columns for cell in cells]
    assert kept == [["click", "ctcvr", "watch_seconds"], ["click", "ctcvr", "watch_seconds", "liked"]] * 2
    rows = aggregate(cells, tmp_path, frame, tasks=tasks, competitors=(), resamples=50)
    found = {(row["features"], row["metric"]): row for row in rows}
    assert {metric.split()[0] for _, metric in found} == {"click", "ctcvr", "watch_seconds"}
    assert found["taiji", "watch_seconds xauc"]["difference"]["low"] > 0
    assert len(found["taiji", "watch_seconds mae"]["per_seed"]) == 2
