"""The loss on held-out rows is that of all rows, whatever the size of the last batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from taiji.data.field_set import Arrays
from taiji.models.ranking.training_loop import validation_loss


@pytest.mark.parametrize("rows", [8, 9, 12, 13])
def test_each_row_counts_once_in_the_validation_loss(rows):
    outputs = np.random.default_rng(0).random(rows)
    nothing = np.zeros((rows, 0))
    valid = Arrays(
        *(np.zeros(rows, np.int32),) * 2, nothing, nothing, {}, {}, {}, {}, {}, {"click": np.zeros(rows)}, np.arange(rows)
    )  # fmt: skip
    ranker = SimpleNamespace(
        settings=SimpleNamespace(batch=4),
        logits=lambda arrays: outputs,
        loss=lambda found, labels, group=None: torch.mean(found - labels["click"]),
    )
    assert validation_loss(ranker, valid) == pytest.approx(outputs.mean())
