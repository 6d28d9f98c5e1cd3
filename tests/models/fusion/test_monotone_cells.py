"""The outer function's bound, no violation, the contracts, and an order that is found."""

import numpy as np
import pytest
import torch

from taiji.core.component import Requests
from taiji.core.errors import InputError
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.models.fusion.monotone_cells import CellsSettings, MonotoneCells, outer
from taiji.testing import check_component, check_deterministic, check_fuser, checkerboard

SETTINGS = CellsSettings(weights={"click": 1.0, "like": 1.0}, epochs=8, batch=16, grid=7, rate=0.03)


def logged(seed=0, slates=80):
    random = np.random.default_rng(seed)
    click, like = random.random((2, slates, 6))
    worth = click**4 + np.sqrt(like)
    return FusionRows(Requests(np.arange(slates), np.arange(slates)), {"click": click, "like": like}, {"click": worth})


@pytest.fixture(scope="module")
def fitted():
    return MonotoneCells(SETTINGS).fit(logged())


def test_outer_function_is_exact_and_rises_down_to_its_bound():
    q = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for a in (-0.5, -0.2, 0.0, 3.0):
        np.testing.assert_allclose(outer(q, a), q * (1 + a * q), atol=1e-15)
        assert (outer(q, a).diff() >= 0).all()
    assert ((q * (1 - 0.51 * q)).diff() < 0).any()


def test_contracts(fitted):
    rows = logged(1, 5)
    check_component(fitted, checkerboard(), lambda made: made.fuse(rows.predictions, rows.requests))
    check_fuser(fitted, ["click", "like", "other"], monotone={"click": 1, "like": 1}, tolerance=1e-12)
    told = SETTINGS.model_copy(update={"columns": ("kind",), "epochs": 1})
    requests = Requests(np.arange(5), np.arange(5), {"kind": np.arange(5.0)})
    check_deterministic(
        lambda seed: MonotoneCells(told).fit(FusionRows(requests, rows.predictions, rows.labels), seed=seed)
    )


def test_no_violation_for_any_action(fitted):
    random = np.random.default_rng(2)
    requests = Requests(np.arange(100), np.arange(100))
    values = random.uniform(-0.3, 1.3, (100, 30, 2))
    made = MonotoneCells(SETTINGS)
    made.restore(fitted.weights())
    for action in ([0.0, 0.0], [-0.5, 4.0], [2.0, -0.3]):
        made.act(np.array(action))
        before = made.score(values, requests)
        for task in range(2):
            raised = values.copy()
            raised[..., task] += 10.0 ** random.uniform(-16, 0, before.shape)
            assert (made.score(raised, requests) >= before).all()
    for wrong in ([-0.6, 0.0], [0.0], [np.nan, 0.0]):
        with pytest.raises(InputError, match="action"):
            made.act(np.array(wrong))


def test_planted_order_is_found(fitted):
    rows = logged(7)
    worth, scores = rows.labels["click"], fitted.fuse(rows.predictions, rows.requests)

    def right(s):
        pairs = worth[:, :, None] > worth[:, None, :]
        return float((s[:, :, None] > s[:, None, :])[pairs].mean())

    assert right(scores) > right(rows.predictions["click"] + rows.predictions["like"])


def test_a_missing_value_counts_as_the_usual_one():
    rows = logged()
    kind = np.where(np.arange(80) == 3, np.nan, np.arange(80) % 2)
    settings = SETTINGS.model_copy(update={"columns": ("kind",), "epochs": 1})
    made = MonotoneCells(settings).fit(
        FusionRows(Requests(np.arange(80), np.arange(80), {"kind": kind}), rows.predictions, rows.labels)
    )
    part = {name: values[:1] for name, values in rows.predictions.items()}
    found = made.fuse(part, Requests([0], [0], {"kind": np.array([np.nan])}))
    np.testing.assert_array_equal(found, made.fuse(part, Requests([0], [0], {"kind": np.array([np.nanmean(kind)])})))
