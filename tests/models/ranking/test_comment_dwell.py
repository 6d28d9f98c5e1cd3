import numpy as np
import polars as pl
import pytest
import torch

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.fields import Rows
from taiji.data.schema import Tables
from taiji.data.tasks import Task
from taiji.models.ranking import comment_dwell
from taiji.models.ranking.comment_dwell import (
    CommentDwellRanker,
    CommentTexts,
    click_loss,
    log_expected_stay,
    order_loss,
    stay_loss,
)
from taiji.models.ranking.ranker import Ranker
from taiji.testing import check_scorer, checkerboard, exposures_of
from taiji.testing.datasets import requests_of

COLUMNS = EventColumns(
    labels=(
        Task(name="comment_seconds", kind="duration"),
        Task(name="comment_place", kind="count", weight=0.0),
    )
)
SMALL = {
    "hidden": (8,), "min_steps": 1, "device": "cpu", "dropout": 0.0, "pair_fields": (), "cross_layers": 1, "most": 3,
    "text_columns": 2, "text_width": 4, "dimension": 3, "bins": 2, "embedder": "letters",
}  # fmt: skip


def letters(name, texts):
    """Vectors of texts by the letters they hold, zero for a blank one."""
    return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
def embedder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comment_dwell, "embedded", letters)
        yield


@pytest.fixture(scope="module")
def board():
    """A checkerboard with comments, in which users stay as many seconds as the item's number says where they click."""
    board = checkerboard()
    events = board.events.with_columns(
        timestamp=pl.from_epoch(pl.col("time"), time_unit="us"),
        item_id=board.items["item_id"].gather(board.events["item"]),
        user_id=board.users["user_id"].gather(board.events["user"]),
        comment_seconds=(pl.col("click") * pl.col("item")).cast(pl.Float64),
        comment_place=pl.when((pl.col("click") == 1) & (pl.col("user") % 3 == 0)).then(pl.col("item") % 3),
    )
    kept = ["user_id", "item_id", "timestamp", "click", "conversion", "comment_seconds", "comment_place"]
    said = [[f"{'abcdefgh'[i % 8] * 3}", f"{'abcdefgh'[i * 3 % 8]}", None][: i % 4] for i in range(20)]
    items = board.items.drop("item").with_columns(comments=pl.Series(said, dtype=pl.List(pl.String)))
    return Dataset.from_tables(Tables(items, board.users.drop("user"), events.select(kept), event_columns=COLUMNS))


def test_the_expected_stay_is_the_odds_times_the_probability_not_to_stay():
    seconds = torch.tensor([0.0, 0.0, 0.0, 4.0, 0.0, 11.5, 0.0, 0.25]).double()
    opened = (seconds > 0).double()
    stay = (seconds.sum() / (1 - opened).sum()).log().requires_grad_()
    companion = torch.logit(opened.mean())
    loss = stay_loss(stay.expand(8), seconds).mean()
    (slope,) = torch.autograd.grad(loss, stay)
    assert abs(float(slope)) < 1e-15  # the optimum of a model with nothing to tell rows apart
    expected = log_expected_stay(stay, companion).exp()
    torch.testing.assert_close(expected, seconds.mean(), rtol=1e-14, atol=0)
    torch.testing.assert_close(stay.exp(), seconds.mean() / (1 - opened.mean()), rtol=1e-14, atol=0)  # too long


def test_the_identity_holds_for_any_probability_and_mean():
    random = np.random.default_rng(0)
    share, mean = torch.tensor(random.uniform(0.001, 0.999, 200)), torch.tensor(random.uniform(0.01, 500, 200))
    stay = (share * mean / (1 - share)).log()
    torch.testing.assert_close(log_expected_stay(stay, torch.logit(share)).exp(), share * mean, rtol=1e-11, atol=0)


def test_a_row_is_positive_from_the_first_second_and_weighs_its_seconds():
    stay, seconds = torch.full((3,), 0.3).double(), torch.tensor([0.0, 0.01, 50.0], dtype=torch.float64)
    positive = -torch.log(torch.sigmoid(stay[0]))
    expected = torch.stack([-torch.log(1 - torch.sigmoid(stay[0])), 0.01 * positive, 50 * positive])
    torch.testing.assert_close(stay_loss(stay, seconds), expected, rtol=1e-13, atol=0)


def test_the_order_of_comments_is_best_where_it_is_sorted_and_takes_scores_as_they_are():
    from itertools import permutations

    popularity = torch.tensor([[1.0, 3.0, 2.0, 4.0]]).double()
    values = [0.2, 1.1, 2.5, -0.7]
    found = {p: float(order_loss(torch.tensor([p]).double(), popularity)) for p in permutations(values)}
    best = min(found, key=found.get)
    assert np.argsort(best).tolist() == np.argsort(popularity[0]).tolist()
    assert float(order_loss(50 * popularity, popularity)) < 1e-12  # a softmax beforehand could not get there
    probability = 1.0
    rest = torch.tensor(values).double().exp()
    for place in (3, 1, 2, 0):
        probability *= rest[place] / rest.sum()
        rest[place] = 0
    assert found[tuple(values)] == pytest.approx(-float(probability.log()) / 4)


def test_comments_without_popularity_have_no_order():
    scores = torch.randn(2, 3).double().requires_grad_()
    loss = order_loss(scores, torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).double())
    expected = -torch.log_softmax(scores[1], dim=0)[1]
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    assert order_loss(scores, torch.zeros(2, 3).double()) == 0


def test_a_click_teaches_on_its_own_row_alone():
    scores = torch.randn(4, 3).double().requires_grad_()
    loss = click_loss(scores, torch.tensor([torch.nan, 2.0, torch.nan, 7.0]))
    loss.backward()
    torch.testing.assert_close(loss, -torch.log_softmax(scores[1], dim=0)[2], rtol=1e-14, atol=0)
    assert torch.count_nonzero(scores.grad[[0, 2, 3]]) == 0


def test_clicks_are_counted_strictly_before(board):
    field = CommentTexts("comments", "comment_place", most=3, embedder="letters", columns=2)
    rows = exposures_of(board)
    field.fit(board, rows, 0)
    chosen = rows.sort("time").gather([0, 300, 700, 1100, len(rows) - 1])
    found = np.expm1(field.clicks(Rows(board, chosen)))
    for row, counts in zip(chosen.iter_rows(named=True), found):
        before = board.events.filter((pl.col("item") == row["item"]) & (pl.col("time") < row["time"]))
        expected = [len(before.filter(pl.col("comment_place") == place)) for place in range(3)]
        np.testing.assert_allclose(counts, expected, atol=1e-12)
    assert found[-1].sum() > 0 and found[0].sum() == 0


def test_it_keeps_the_contract_and_predicts_the_exact_stay(board, tmp_path, caplog):
    rows = exposures_of(board)
    ranker = CommentDwellRanker(CommentDwellRanker.Settings(**SMALL)).fit(board, rows, seed=0)
    assert "never reads" not in caplog.text  # what is looked at through a changed batch counts
    check_scorer(ranker, board)
    assert ranker.encode(requests_of(board)).split is not None
    outputs = torch.from_numpy(ranker.logits(ranker.inputs.arrays(rows.head(50))))
    count = ranker.loss.outputs
    expected = (
        log_expected_stay(outputs[:, count], outputs[:, count + 1]).exp() * ranker.calibration["comment_seconds"][0]
    )
    found = ranker.predict(rows.head(50))["comment_seconds"].to_numpy()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)  # weights are float32
    ranker.save(tmp_path / "ranker")
    again = Ranker.load(tmp_path / "ranker", board)
    assert type(again) is CommentDwellRanker and again.version == ranker.version
    np.testing.assert_array_equal(again.predict(rows.head(50))["comment_seconds"].to_numpy(), found)


def test_what_it_needs_is_said(board):
    with pytest.raises(ConfigError):
        CommentDwellRanker(CommentDwellRanker.Settings(**SMALL)).fit(checkerboard(), exposures_of(checkerboard()))
    for wrong in ({"comments": "remarks"}, {"stay": "click"}, {"text_heads": 3}):
        settings = CommentDwellRanker.Settings(**{**SMALL, **wrong})
        with pytest.raises(ConfigError):
            CommentDwellRanker(settings).fit(board, exposures_of(board).head(50))
