"""Retrievers on logs from which a network cannot learn."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest
import torch

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.models.retrieval.mean_loss import mean_loss
from taiji.models.retrieval.sasrec import SASRec, SASRecSettings


def sparse_log(interactions: int) -> Dataset:
    """A log in which every user has the same number of interactions."""
    shown = [(user, (7 * user + 3 * place) % 12, place) for user in range(20) for place in range(interactions)]
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame({"item_id": [f"i{i}" for i in range(12)], "title": [f"thing {i}" for i in range(12)]}),
            users=pl.DataFrame({"user_id": [f"u{u}" for u in range(20)]}),
            events=pl.DataFrame(
                {
                    "user_id": [f"u{user}" for user, _, _ in shown],
                    "item_id": [f"i{item}" for _, item, _ in shown],
                    "timestamp": [datetime(2024, 1, 1) + timedelta(hours=place) for _, _, place in shown],
                    "click": [1] * len(shown),
                }
            ),
            name="sparse",
        )
    )


def test_it_is_the_mean_of_the_steps() -> None:
    assert mean_loss([torch.tensor(1.0), torch.tensor(2.0)]) == 1.5


@pytest.mark.parametrize("interactions", [1, 2])
def test_a_network_without_anything_to_predict_is_an_error(interactions: int) -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        SASRec(SASRecSettings(epochs=1, width=8)).fit(sparse_log(interactions))


def test_fewer_held_out_users_leave_something_to_predict() -> None:
    model = SASRec(SASRecSettings(epochs=1, width=8, valid_users=5)).fit(sparse_log(2))
    assert len(model.facts["checks"]) == 1
