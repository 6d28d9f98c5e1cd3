import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.schema import Tables
from taiji.data.tasks import Task
from taiji.metrics.ranking_metrics import auc
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.satisfaction_path import (
    SatisfactionRanker,
    alignment_loss,
    answer_pairs,
    log_softplus,
    ordered_pairs,
)
from taiji.testing import check_learns_checkerboard, check_scorer, checkerboard, exposures_of
from taiji.testing.datasets import requests_of

SURVEYS = EventColumns(labels=(Task(name="satisfied", kind="survey"),))
SMALL = {"hidden": (8, 6), "min_steps": 1, "device": "cpu", "dropout": 0.0, "rank": 3, "pair_fields": ()}


def surveyed():
    """A checkerboard whose requests show ten items and of which every fifth row is answered, by whether clicks on the
    item convert."""
    board = checkerboard()
    events = board.events.with_row_index("row").with_columns(
        timestamp=pl.from_epoch(pl.col("time") // 3_600_000_000 // 10 * 36_000, time_unit="s"),
        item_id=board.items["item_id"].gather(board.events["item"]),
        user_id=board.users["user_id"].gather(board.events["user"]),
        satisfied=pl.when(pl.col("row") % 5 == 0).then((pl.col("item") % 4 == 0).cast(pl.Int8)),
    )
    kept = ["user_id", "item_id", "timestamp", "click", "conversion", "satisfied"]
    tables = Tables(board.items.drop("item"), board.users.drop("user"), events.select(kept), event_columns=SURVEYS)
    return Dataset.from_tables(tables)


@pytest.fixture(scope="module")
def board():
    return surveyed()


@pytest.fixture
def made(board):
    """An untrained ranker in float64 without zero weights, a batch, its labels and requests."""
    frame = exposures_of(board).head(80)
    ranker = SatisfactionRanker(SatisfactionRanker.Settings(**SMALL)).fit(board, frame, seed=0)
    torch.manual_seed(0)
    ranker.network.double().train()
    with torch.no_grad():
        for parameter in ranker.network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
        ranker.network.main.router.bias.fill_(1.0)
        ranker.network.satisfaction.router.bias.fill_(1.0)
    arrays = ranker.inputs.arrays(frame)
    batch = {n: v.double() if v.is_floating_point() else v for n, v in ranker.inputs.batch(arrays, slice(None)).items()}
    labels = {name: torch.from_numpy(values).double() for name, values in arrays.labels.items()}
    return ranker, batch, labels, torch.from_numpy(arrays.group)


def reach(ranker, loss):
    """Sums of absolute gradients of a loss by the part of the network."""
    network = ranker.network
    network.zero_grad(set_to_none=True)
    loss.backward()
    parts = {
        "low rank": (network.down, network.up),
        "satisfaction": (network.satisfaction,),
        "first": (network.first,),
        "inputs": (network.inputs,),
        "main": (network.main,),
    }

    def size(parameter):
        gradient = parameter.grad
        if gradient is None:
            return 0.0
        return float((gradient.coalesce().values() if gradient.is_sparse else gradient).abs().sum())

    return {name: sum(size(p) for module in modules for p in module.parameters()) for name, modules in parts.items()}


OWN, THEIRS = ("low rank", "satisfaction"), ("first", "inputs", "main")


def test_behaviour_does_not_move_the_isolated_path(made):
    ranker, batch, labels, group = made
    found = reach(ranker, ranker.loss.main(ranker.network(batch), labels, group))
    assert [found[name] for name in OWN] == [0.0, 0.0] and min(found[name] for name in THEIRS) > 0


def test_answers_do_not_move_the_first_layer_or_what_feeds_it(made):
    ranker, batch, labels, _ = made
    found = reach(ranker, ranker.loss.satisfied(ranker.network(batch), labels["satisfied"]))
    assert [found[name] for name in THEIRS] == [0.0, 0.0, 0.0] and min(found[name] for name in OWN) > 0


@pytest.mark.parametrize("aligned", ["answers", "exposures"])
def test_alignment_does_not_move_the_path_of_satisfaction(made, aligned):
    ranker, batch, labels, group = made
    outputs = ranker.network(batch)
    pairs = answer_pairs(labels["satisfied"]) if aligned == "answers" else ordered_pairs(outputs[:, -2], group)
    found = reach(ranker, ranker.loss.aligned(outputs, pairs))
    assert [found[name] for name in OWN] == [0.0, 0.0] and min(found[name] for name in THEIRS) > 0


def test_it_begins_as_the_model_without_the_isolated_path(board):
    ranker = SatisfactionRanker(SatisfactionRanker.Settings(**SMALL)).fit(board, exposures_of(board).head(80), seed=0)
    network = ranker.make_network().double()
    assert torch.count_nonzero(network.up.weight) == 0 and torch.count_nonzero(network.down.weight) > 0
    flat = torch.randn(5, network.inputs.out_width).double()
    main, own = network.paths(flat)
    assert torch.equal(main, network.first(flat)) and torch.equal(own, main)
    torch.nn.init.normal_(network.up.weight)
    main, own = network.paths(flat)
    torch.testing.assert_close(main, network.first(flat) + network.up(network.down(flat)), rtol=0, atol=1e-14)
    assert torch.equal(own, main)


def test_alignment_is_a_pairwise_loss_whose_margin_is_the_ratio_of_satisfaction():
    torch.manual_seed(0)
    served, satisfaction = torch.randn(20, 2).double(), torch.randn(20, 2).double()
    y, s = functional.softplus(served), functional.softplus(satisfaction)
    margin = (s[:, 0] / s[:, 1]).log()
    expected = -torch.log(torch.sigmoid(0.7 * ((y[:, 0] / y[:, 1]).log() - margin)))
    torch.testing.assert_close(alignment_loss(served, satisfaction, 0.7), expected, rtol=1e-12, atol=0)
    same = alignment_loss(served, served, 0.7)
    torch.testing.assert_close(same, torch.full((20,), 2.0).double().log(), rtol=1e-14, atol=0)


def test_logarithms_of_scores_are_finite_with_a_gradient_everywhere():
    values = torch.tensor([-1e4, -40.0, -33.0, -1.0, 0.0, 50.0]).double().requires_grad_()
    found = log_softplus(values)
    found.sum().backward()
    torch.testing.assert_close(found[1:], functional.softplus(values[1:]).log(), rtol=1e-13, atol=0)
    assert (
        found[0] == -1e4 and torch.isfinite(values.grad).all() and values.grad[:3].tolist() == pytest.approx([1.0] * 3)
    )


def test_no_answer_is_neither_good_nor_bad():
    answers = torch.tensor([1.0, torch.nan, 0.0, torch.nan, 1.0])
    assert answer_pairs(answers).tolist() == [[0, 2], [4, 2]]
    assert answer_pairs(torch.tensor([1.0, torch.nan])).shape == (0, 2)


def test_pairs_of_exposures_are_of_one_request():
    found = ordered_pairs(torch.tensor([0.1, 0.5, 0.9, 0.9]), torch.tensor([0, 0, 1, 1]))
    assert found.tolist() == [[1, 0]]


def test_a_log_without_answers_teaches_behaviour_alone(made):
    ranker, batch, labels, group = made
    outputs = ranker.network(batch)
    unknown = {**labels, "satisfied": torch.full_like(labels["satisfied"], torch.nan)}
    assert torch.equal(ranker.loss(outputs, unknown, group), ranker.loss.main(outputs, labels, group))


def test_it_keeps_the_contract_and_learns_both(board, tmp_path):
    settings = SatisfactionRanker.Settings(**{**SMALL, "hidden": (16, 8), "min_steps": 200, "alignment_weight": 0.05})
    ranker = SatisfactionRanker(settings).fit(board, exposures_of(board), seed=0)
    check_scorer(ranker, board)
    check_learns_checkerboard(ranker, board)
    assert ranker.heads == ("click", "conversion", "ctcvr", "satisfied", "served") and ranker.goal == "served"
    frame = exposures_of(board)
    predicted = ranker.predict(frame)
    pleased = (frame["item"] % 4 == 0).to_numpy()
    assert auc(pleased, predicted["satisfied"].to_numpy()) > 0.8
    assert ranker.encode(requests_of(board)).split is not None
    ranker.save(tmp_path / "ranker")
    again = Ranker.load(tmp_path / "ranker", board)
    assert type(again) is SatisfactionRanker and again.version == ranker.version
    np.testing.assert_array_equal(again.predict(frame)["served"].to_numpy(), predicted["served"].to_numpy())


def test_pairs_of_exposures_train_too(board):
    settings = SatisfactionRanker.Settings(**SMALL, aligned="exposures")
    rows = exposures_of(board).head(200)
    plain = SatisfactionRanker(settings.model_copy(update={"alignment_weight": 0.0})).fit(board, rows, seed=0)
    aligned = SatisfactionRanker(settings).fit(board, rows, seed=0)
    found, before = (ranker.predict(rows)["served"].to_numpy() for ranker in (aligned, plain))
    assert np.isfinite(found).all() and np.abs(found - before).max() > 0


def test_one_questionnaire_is_needed_and_behaviour_is_a_label():
    with pytest.raises(ConfigError):
        SatisfactionRanker().learnt_tasks(checkerboard())
    board = surveyed()
    with pytest.raises(ConfigError):
        settings = SatisfactionRanker.Settings(**SMALL, behaviours={"likes": 1.0})
        SatisfactionRanker(settings).fit(board, exposures_of(board).head(80))
