"""Every ranking model keeps the contract: the inherited checks, tasks of every kind, context fields, devices."""

import numpy as np
import polars as pl
import pytest
import torch
from tests.models.ranking.conftest import with_features

from taiji.core.component import Requests, Slate
from taiji.core.errors import ArtifactError, ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.tasks import Task, labels
from taiji.models.ranking.dcn import DCNRanker, DCNSettings
from taiji.models.ranking.din import DINRanker, DINSettings
from taiji.models.ranking.ranker import Ranker, ranker_class
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.testing import (
    check_component,
    check_deterministic,
    check_learns_checkerboard,
    check_scorer,
    checkerboard,
    exposures_of,
    requests_of,
)

SMALL = {"hidden": (16,), "batch": 128, "min_steps": 150, "history": 8, "device": "cpu"}
MODELS = {
    "target_attention": TargetAttentionRanker(RankerSettings(**SMALL)),
    "dcn": DCNRanker(DCNSettings(**SMALL)),
    "din": DINRanker(DINSettings(**SMALL)),
}


def fresh(model, **more):
    kind = type(MODELS[model])
    return kind(kind.Settings(**{**SMALL, **more}))


@pytest.fixture(scope="module")
def board():
    return checkerboard()


@pytest.fixture(scope="module", params=list(MODELS))
def trained(request, board):
    return fresh(request.param).fit(board, exposures_of(board), seed=0)


def clicks(board):
    requests = requests_of(board)
    slate = Slate(np.tile(np.arange(board.n_items), (len(requests), 1)))
    return lambda ranker: ranker.score(ranker.encode(requests), slate)["click"]


def test_scorer(trained, board):
    check_scorer(trained, board)


def test_component(trained, board):
    check_component(trained, board, clicks(board))


def test_every_model_finds_the_one_right_answer(trained, board):
    check_learns_checkerboard(trained, board)


@pytest.mark.parametrize("model", MODELS)
def test_seed(model, board):
    rows = exposures_of(board)
    check_deterministic(lambda seed: fresh(model, min_steps=5).fit(board, rows, seed=seed))


@pytest.mark.parametrize("model", MODELS)
def test_slates_score_as_rows_do_with_all_features(model, shop, exposures):
    rows = with_features(exposures)
    ranker = fresh(model, min_steps=20, neighbour=4).fit(shop, rows, seed=0)
    asked = rows.sample(9, seed=1)
    columns = {
        name: np.array([*asked[name].to_list(), None], dtype=object)[:-1]
        for name in ("ids", "neighbour_items", "vector")
    }
    requests = Requests(asked["user"].to_numpy(), asked["time"].to_numpy(), columns)
    check_scorer(ranker, shop, requests)
    items = np.random.default_rng(0).integers(0, shop.n_items, (9, 6))
    found = ranker.score(ranker.encode(requests), Slate(items))
    one_by_one = asked[np.repeat(np.arange(9), 6)].with_columns(item=pl.Series(items.ravel()))
    for head, values in found.items():
        np.testing.assert_allclose(values.ravel(), ranker.predict(one_by_one)[head].to_numpy(), rtol=0, atol=5e-6)


KINDS = (
    Task(name="liked", given="click"),
    Task(name="opens", kind="count"),
    Task(name="watch_seconds", kind="duration"),
    Task(name="stars", kind="ordinal", levels=5),
    Task(name="taste", kind="pairwise"),
    Task(name="asked", kind="survey"),
)


@pytest.fixture(scope="module")
def lively(board):
    """The checkerboard with a label of every kind, each high on the user's own colour, and a context column."""
    random = np.random.default_rng(0)
    own = board.events["click"].to_numpy() == 1
    n = len(own)
    events = board.events.with_columns(
        liked=pl.Series(np.where(own, random.random(n) < 0.8, False).astype(np.int8)),
        opens=pl.Series(random.poisson(np.where(own, 6.0, 1.0))),
        watch_seconds=pl.Series(random.exponential(np.where(own, 60.0, 5.0))),
        stars=pl.Series(np.where(own, random.integers(3, 5, n), random.integers(0, 2, n))),
        taste=pl.Series(own + random.random(n) / 2),
        asked=pl.Series([bool(o) if i % 10 == 0 else None for i, o in enumerate(own)]).cast(pl.Int8),
        screen=pl.Series(["tv" if i % 3 else "phone" for i in range(n)]),
        load=pl.Series(random.random(n)),
    )
    return Dataset(
        board.items, board.users, events, "lively", "shop", (), EventColumns(labels=KINDS, context=("screen", "load"))
    )


@pytest.mark.parametrize("model", MODELS)
def test_labels_of_every_kind_get_a_trained_head(model, lively, tmp_path):
    ranker = fresh(model).fit(lively, exposures_of(lively), seed=0)
    assert ranker.heads == (
        *("click", "conversion", "ctcvr", "liked", "click_liked"),
        *("opens", "watch_seconds", "stars", "taste", "asked"),
    )
    check_scorer(ranker, lively, tolerance=1e-5)  # durations are exponentials: the last bits of a logit count more
    for head in ("click", "click_liked", "opens", "watch_seconds", "stars", "asked"):
        check_learns_checkerboard(ranker, lively, head)
    predicted, rows = ranker.predict(exposures_of(lively)), exposures_of(lively)
    for head in ("opens", "watch_seconds"):
        assert abs(predicted[head].mean() / rows[head].mean() - 1) < 0.15, head
    assert predicted["stars"].min() >= 0 and predicted["stars"].max() <= 4
    ranker.save(tmp_path / "ranker")
    assert Ranker.load(tmp_path / "ranker", lively).predict(rows).equals(predicted)


def test_pairs_order_within_a_request(lively):
    rows = exposures_of(lively).with_columns(time=pl.col("time") // (10 * 3_600_000_000) * (10 * 3_600_000_000))
    ranker = fresh("target_attention", tasks=("click", "taste")).fit(lively, rows, seed=0)
    check_learns_checkerboard(ranker, lively, "taste")


def test_context_is_an_input_of_its_own(lively):
    ranker = fresh("target_attention").fit(lively, exposures_of(lively), seed=0)
    assert ranker.layout.row.columns == (1,) and "context:load" in ranker.layout.numbers
    users, times = np.zeros(2, np.int64), np.full(2, 2**60)
    requests = Requests(users, times, {"screen": np.array(["tv", "phone"], dtype=object), "load": np.array([0.1, 0.1])})
    slate = Slate(np.tile(np.arange(5), (2, 1)))
    first, second = ranker.score(ranker.encode(requests), slate)["click"]
    assert not np.array_equal(first, second)
    unseen = Requests(users, times, {"screen": np.array(["fridge", None], dtype=object)})
    assert np.isfinite(ranker.score(ranker.encode(unseen), slate)["click"]).all()


def test_tasks_and_their_weights_come_from_the_settings(lively):
    ranker = fresh("target_attention", tasks=("click", "opens"), task_weights={"opens": 0.0}, min_steps=5)
    ranker.fit(lively, exposures_of(lively))
    assert ranker.heads == ("click", "opens") and ranker.goal == "click"
    with pytest.raises(ConfigError, match="no label of this name"):
        fresh("target_attention", tasks=("click", "likes")).fit(lively, exposures_of(lively))
    with pytest.raises(ConfigError, match="condition of a label"):
        fresh("target_attention", tasks=("conversion",)).fit(lively, exposures_of(lively))


def test_fields_of_the_settings_are_read(lively, board):
    settings = {"fields": ({"field": "category", "column": "screen"}, {"field": "number", "column": "load"})}
    plain = Dataset(lively.items, lively.users, lively.events, "plain", "shop")
    ranker = fresh("dcn", min_steps=5, **settings).fit(plain, exposures_of(lively))
    assert ranker.layout.row.columns == (1,) and ranker.layout.numbers[-1] == "load"
    with pytest.raises(ConfigError, match="arguments of a field are invalid"):
        fresh("dcn", fields=({"field": "number", "colum": "load"},)).fit(board, exposures_of(board))


@pytest.mark.parametrize("column", ["click", "conversion", "watch_seconds", "opens"])
def test_a_field_cannot_read_a_label(column, lively):
    with pytest.raises(ConfigError, match="reads an outcome"):
        fresh("dcn", fields=({"field": "number", "column": column},)).fit(lively, exposures_of(lively))


def test_the_kind_of_a_context_field_does_not_depend_on_later_values(lively):
    """Whole numbers are categories, in bins where the training rows have many values, whatever comes later."""
    early = lively.events.with_columns(size=pl.Series(np.arange(len(lively.events)) % 3))
    late = early.with_columns(size=pl.when(pl.col("event") > 1000).then(pl.col("event")).otherwise(pl.col("size")))
    made = [
        fresh("dcn", min_steps=5).fit(
            Dataset(lively.items, lively.users, events, "x", "shop", (), EventColumns(context=("size",))),
            events.filter(pl.col("event") < 900).drop("exposed", "matured_at"),
        )
        for events in (early, late)
    ]
    assert made[0].fieldset.config() == made[1].fieldset.config() and made[0].layout.row.columns == (1,)


def test_columns_of_a_slate_are_inputs_of_their_rows(lively, board):
    field = {"field": "number", "column": "similarity", "side": "pair"}
    similar = pl.Series(np.random.default_rng(0).random(len(board.events)))
    rows = exposures_of(board).with_columns(similarity=similar)
    ranker = fresh("target_attention", fields=(field,)).fit(board, rows)
    requests, items = requests_of(board, 3), np.tile(np.arange(4), (3, 1))
    given = np.random.default_rng(1).random((3, 4))
    found = ranker.score(ranker.encode(requests), Slate(items, columns={"similarity": given}))["click"]
    frame = pl.DataFrame(
        {"user": np.repeat(requests.user, 4), "item": items.ravel(), "time": np.repeat(requests.time, 4)}
    )
    expected = ranker.predict(frame.with_columns(similarity=pl.Series(given.ravel())))["click"].to_numpy()
    np.testing.assert_allclose(found.ravel(), expected, atol=5e-6)
    assert np.abs(found - ranker.score(ranker.encode(requests), Slate(items))["click"]).max() > 1e-6


def test_a_survey_of_clickers_learns_from_those_who_were_asked(board):
    """One in ten clickers is asked and most are pleased; the rows that were not asked say nothing against it."""
    random = np.random.default_rng(0)
    click = board.events["click"].to_numpy() == 1
    asked = click & (random.random(len(click)) < 0.1)
    pleased = np.where(asked, (random.random(len(click)) < 0.85).astype(float), np.nan)
    events = board.events.with_columns(pleased=pl.Series(pleased).fill_nan(None).cast(pl.Int8))
    task = Task(name="pleased", kind="survey", given="click")
    dataset = Dataset(board.items, board.users, events, "asked", "shop", (), EventColumns(labels=(task,)))
    predicted = fresh("target_attention").fit(dataset, exposures_of(dataset)).predict(exposures_of(dataset))
    assert 0.7 < predicted["pleased"].to_numpy()[click].mean() < 0.97


def test_validation_rows_without_labels_do_not_stop_the_training(lively, caplog):
    rows = exposures_of(lively)
    blind = rows.tail(100).with_columns(opens=pl.lit(None, pl.Int64))
    settings = {"tasks": ("click", "opens"), "task_weights": {"click": 0.0}}
    ranker = fresh("target_attention", **settings).fit(lively, rows.head(1000), valid=blind)
    assert "no known label of any task" in caplog.text and ranker.history[-1]["rows"] == 10 * 1000, (
        "ten passes, the most there are"
    )
    check_learns_checkerboard(ranker, lively, "opens")


def test_the_goal_is_ctcvr_in_any_order_of_labels(lively):
    for tasks, goal in ((("liked", "click", "conversion"), "ctcvr"), (("click", "liked"), "click")):
        assert fresh("dcn", tasks=tasks, min_steps=2).fit(lively, exposures_of(lively)).goal == goal


def test_large_numbers_order_pairs_as_small_ones_do():
    frame = pl.DataFrame({"time": [1, 1, 1, 1], "taste": [1_700_000_000.0, 1_700_000_001.0, None, 5.0]})
    found = labels(frame, (Task(name="taste", kind="pairwise"),))["taste"]
    np.testing.assert_array_equal(found, np.array([2, 3, np.nan, 1], dtype=np.float32))


def test_an_input_that_a_network_never_reads_is_said(shop, exposures, caplog):
    rows = with_features(exposures)
    fresh("dcn", min_steps=2).fit(shop, rows)
    assert "never reads" not in caplog.text
    layout_only = type("Deaf", (DCNRanker,), {"network_class": Deaf})
    layout_only(DCNSettings(**SMALL)).fit(shop, rows)
    assert "never reads" in caplog.text and "vector" in caplog.text and "numbers" not in caplog.text.split("never")[1]


class Deaf(DCNRanker.network_class):
    """A network that hears nothing but numbers."""

    def penalised(self, batch):
        return self.heads(torch.zeros(len(batch["numbers"]), self.heads.in_features)), None


def test_a_damaged_ranker_is_one_message(board, tmp_path):
    fresh("dcn", min_steps=2).fit(board, exposures_of(board)).save(tmp_path / "ranker")
    config = (tmp_path / "ranker" / "config.json").read_text()
    for old, new in (
        ('"dimension": 8', '"dimension": 9'),
        ('"cross_layers"', '"cross_floors"'),
        ('"fields"', '"felds"'),
    ):
        (tmp_path / "ranker" / "config.json").write_text(config.replace(old, new))
        with pytest.raises(ArtifactError, match="damaged"):
            Ranker.load(tmp_path / "ranker", board)


def test_pairs_are_of_a_list_where_the_log_has_lists(board):
    rows = exposures_of(board)
    taste = EventColumns(labels=(Task(name="taste", kind="pairwise"),), list_id="page")
    events = board.events.with_columns(taste=pl.col("click").cast(pl.Float64), page=pl.col("event") // 10)
    dataset = Dataset(board.items, board.users, events, "pages", "shop", (), taste)
    rows = exposures_of(dataset)
    assert rows.group_by("user", "time").len()["len"].max() == 1, "every row has a time of its own"
    ranker = fresh("target_attention", tasks=("click", "taste"), task_weights={"click": 0.0}).fit(dataset, rows)
    check_learns_checkerboard(ranker, dataset, "taste")


def test_tables_that_cannot_be_learnt_from_are_explained(board):
    rows = exposures_of(board)
    with pytest.raises(InputError, match="same time"):
        fresh("dcn").fit(board, rows.with_columns(time=pl.lit(5)))
    with pytest.raises(ConfigError, match="weight 0"):
        fresh("dcn", task_weights={"click": 0, "conversion": 0}).fit(board, rows)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="task_weights"):
            fresh("dcn", task_weights={"click": weight})


def test_models_are_found_by_name_and_wrong_ones_are_explained(board, tmp_path):
    assert ranker_class("dcn") is DCNRanker and ranker_class("taiji.models.ranking.din:DINRanker") is DINRanker
    for wrong, message in (
        ("gnc", "No component"),
        ("no.such:Thing", "could not be imported"),
        ("math:pi", "not a ranking model"),
    ):
        with pytest.raises(ConfigError, match=message):
            ranker_class(wrong)
    with pytest.raises(InputError, match="numbers of slates and encoded requests differ"):
        ranker = fresh("dcn", min_steps=5).fit(board, exposures_of(board))
        ranker.score(ranker.encode(requests_of(board)), Slate(np.zeros((1, 2))))


def test_a_device_that_is_not_there_is_explained(board):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="no CUDA device"):
        fresh("dcn", device="cuda").fit(board, exposures_of(board))
