"""The faster paths for a CPU train the same weights as PyTorch's own operations, which other devices use."""

import numpy as np
import pytest
import torch

from taiji.data.tasks import DEFAULT_TASKS
from taiji.models.ranking.ranker import ranker_class
from taiji.models.ranking.training_loop import training_steps
from taiji.nn import lookup, towers
from taiji.testing import checkerboard, exposures_of

DEVICES = ["cuda"] if torch.cuda.is_available() else ["cpu"]
"""Where the stock operations run: on a GPU where there is one, and forced on the CPU elsewhere."""


def trained(model, device):
    board = checkerboard(users=12, items=10, rounds=3)
    kind = ranker_class(model)
    ranker = kind(kind.Settings(dropout=0.0, hidden=(8,), batch=64, min_steps=1, device=device))
    ranker.fit(board, exposures_of(board), seed=0)
    assert ranker.tasks == DEFAULT_TASKS
    arrays = ranker.inputs.arrays(exposures_of(board))
    training_steps(ranker, seed=0)(arrays, np.arange(len(arrays)))
    return ranker.logits(arrays)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("model", ["target_attention", "dcn", "din"])
def test_stock_operations_train_the_same(model, device, monkeypatch):
    fast = trained(model, "cpu")
    for module in (lookup, towers):
        monkeypatch.setattr(module, "on_cpu", lambda tensor: False)
    np.testing.assert_allclose(trained(model, device), fast, atol=2e-3)


def test_stock_dropout_drops_as_often(monkeypatch):
    monkeypatch.setattr(towers, "on_cpu", lambda tensor: False)
    torch.manual_seed(0)
    out = towers.Dropout(0.3)(torch.ones(400, 500))
    exact = round(256 * 0.3) / 256
    assert abs((out == 0).double().mean() - exact) < 0.01
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - exact)])
