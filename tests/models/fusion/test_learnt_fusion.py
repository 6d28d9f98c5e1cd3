"""Conditioning columns: of requests and users with one value per request, never of candidates."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests
from taiji.core.errors import InputError
from taiji.models.fusion.learnt_fusion import CANDIDATES, circumstances, request_numbers
from taiji.testing import checkerboard

BOARD = checkerboard()
REGION = np.arange(BOARD.n_users) % 2
DATASET = replace(
    BOARD,
    users=BOARD.users.with_columns(region=pl.Series(REGION)),
    items=BOARD.items.with_columns(
        region=pl.Series(np.arange(BOARD.n_items)), length=pl.Series(np.arange(BOARD.n_items))
    ),
)


def asked(**columns):
    return Requests([3, 0, 2], [9, 9, 9], {CANDIDATES: np.array([[1, 7], [6, 3], [4, -1]]), **columns})


def test_a_column_of_the_users_is_not_that_of_a_candidate():
    assert request_numbers(("region",), asked(), DATASET)[:, 0].tolist() == REGION[[3, 0, 2]].tolist()
    of_candidates = circumstances("region", asked(), (3, 2), DATASET)
    assert of_candidates[:2].tolist() == [[1, 7], [6, 3]], "a candidate has the value of its item"
    assert request_numbers(("place",), asked(place=np.array([1.0, np.nan, 2.0])), DATASET)[::2, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "found"),
    [("length", "a column of the items"), ("nowhere", "no column of this name"), ("pairs", "one value per candidate")],
)
def test_a_value_per_candidate_is_no_value_of_a_request(name, found):
    with pytest.raises(InputError, match=f"(?s){name}.*{found}"):
        request_numbers((name,), asked(pairs=np.ones((3, 2))), DATASET)
