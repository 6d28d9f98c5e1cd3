import pytest

from taiji.core.errors import ConfigError
from taiji.models.ranking.lifelong import LifelongRanker
from taiji.models.ranking.onnx_export import export_onnx
from taiji.testing import check_learns_checkerboard, check_scorer, checkerboard, exposures_of
from taiji.testing.datasets import requests_of


@pytest.mark.parametrize("operator", ["full_softmax", "factored_softmax", "interest_softmax"])
def test_it_keeps_the_contract_and_learns(operator, tmp_path):
    board = checkerboard()
    settings = LifelongRanker.Settings(
        min_steps=200 if operator == "interest_softmax" else 1,
        hidden=(16,),
        history=20,
        rank=3,
        attended=8,
        operator=operator,
        device="cpu",
    )
    ranker = LifelongRanker(settings).fit(board, exposures_of(board), seed=0)
    check_scorer(ranker, board)
    if operator == "interest_softmax":
        check_learns_checkerboard(ranker, board)
    assert ranker.encode(requests_of(board)).split is not None
    if operator == "full_softmax":
        export_onnx(ranker, exposures_of(board).head(4), tmp_path / "ranker.onnx")
    else:
        with pytest.raises(ConfigError):
            export_onnx(ranker, exposures_of(board).head(4), tmp_path / "ranker.onnx")


def test_a_candidate_costs_the_same_at_any_length_of_the_history():
    board = checkerboard()
    settings = LifelongRanker.Settings(min_steps=1, hidden=(8,), history=40, rank=3, attended=8, device="cpu")
    ranker = LifelongRanker(settings).fit(board, exposures_of(board), seed=0)
    hoisted = ranker.encode(requests_of(board)).hoisted
    long = [values for values in hoisted if values.dim() > 2 and 40 in values.shape]
    assert not long  # what a request hands on has a row per interest, none per behaviour
