"""A policy over the outer functions keeps every promise of the cells, learns what sessions return, and hands it to the
inner functions."""

import numpy as np
import pytest

from taiji.core.component import Requests
from taiji.core.errors import ArtifactError, ConfigError
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.models.fusion.monotone_cells import LOWEST, MonotoneCells
from taiji.models.fusion.session_cells import SessionCells, SessionCellsSettings, saved_session_cells
from taiji.testing import check_component, check_deterministic, check_fuser, checkerboard

SETTINGS = SessionCellsSettings(
    weights={"click": 1.0, "like": 1.0}, state=("place",), epochs=6, batch=16, grid=7, rate=0.03, policy_rate=8.0
)


def logged(seed=0, slates=60):
    random = np.random.default_rng(seed)
    click, like = random.random((2, slates, 6))
    requests = Requests(np.arange(slates), np.arange(slates), {"place": random.integers(0, 5, slates)})
    return FusionRows(requests, {"click": click, "like": like}, {"click": click**2 + 0.5 * like})


@pytest.fixture
def fitted():
    return SessionCells(SETTINGS).fit(logged())


def test_contracts(fitted):
    rows = logged(1, 5)
    fitted.policy.parameters = np.array([[0.5, -0.2], [1.0, 0.3]])
    check_component(fitted, checkerboard(), lambda made: made.fuse(rows.predictions, rows.requests))
    plain = SETTINGS.model_copy(update={"state": ()})
    check_fuser(
        SessionCells(plain).fit(logged()), ["click", "like", "other"], monotone={"click": 1, "like": 1}, tolerance=1e-12
    )
    check_deterministic(lambda seed: SessionCells(plain).fit(rows, seed=seed))


def test_before_the_policy_has_learnt_the_cells_are_those_of_the_inner_stage(fitted):
    rows = logged(1, 5)
    inner = MonotoneCells(SETTINGS).fit(logged())
    np.testing.assert_array_equal(
        fitted.fuse(rows.predictions, rows.requests), inner.fuse(rows.predictions, rows.requests)
    )


def test_whatever_the_policy_no_action_is_below_the_bound_and_no_score_falls(fitted):
    random = np.random.default_rng(2)
    requests = Requests(np.arange(80), np.arange(80), {"place": random.integers(0, 9, 80)})
    values = random.uniform(-0.3, 1.3, (80, 20, 2))
    drawn = 20 * random.normal(size=(80, 2, 2))
    actions = fitted.actions(requests, drawn)
    assert (actions >= LOWEST).all() and actions.max() > 100 and np.isfinite(actions).all()
    before = fitted.explore(values, requests, drawn)
    for task in range(2):
        raised = values.copy()
        raised[..., task] += 10.0 ** random.uniform(-16, 0, before.shape)
        assert (fitted.explore(raised, requests, drawn) >= before).all()


def test_what_sessions_return_moves_the_order_and_the_inner_functions_take_it_over(fitted):
    random, rows = np.random.default_rng(4), logged(3)

    def likes(scores):  # what a session brings: the likes of what is shown first
        return np.take_along_axis(rows.predictions["like"], scores.argmax(axis=1)[:, None], axis=1)[:, 0]

    before = likes(fitted.fuse(rows.predictions, rows.requests)).mean()
    values = fitted.stacked(rows.predictions)
    for _ in range(15):
        drawn = fitted.policy.draw(len(values), random)
        fitted.improve(drawn, likes(fitted.explore(values, rows.requests, drawn)))
    found = fitted.fuse(rows.predictions, rows.requests)
    assert likes(found).mean() > before + 0.02
    fitted.transfer(rows, seed=0)
    assert not fitted.policy.parameters.any() and not fitted.action.any()
    assert likes(fitted.fuse(rows.predictions, rows.requests)).mean() > before + 0.01


def test_saved_cells_are_the_fusion_of_a_recipe(fitted, tmp_path):
    fitted.policy.parameters = np.array([[0.5, -0.2], [1.0, 0.3]])
    fitted.save(tmp_path / "cells")
    rows, own = logged(5, 4), SETTINGS.weights
    named = {"folder": str(tmp_path / "cells"), "version": fitted.version}
    found = saved_session_cells(own, **named).fuse(rows.predictions, rows.requests)
    np.testing.assert_array_equal(found, fitted.fuse(rows.predictions, rows.requests))
    beside = saved_session_cells({**own, "merged": 2.0}, **named)
    merged = {**rows.predictions, "merged": -found}
    np.testing.assert_allclose(beside.fuse(merged, rows.requests), 2.0)  # a rank and its opposite, of weight 2 each
    with pytest.raises(ConfigError, match="fusion_weights"):
        saved_session_cells({"click": 1.0}, **named)
    with pytest.raises(ArtifactError, match="version"):
        saved_session_cells(own, **{**named, "version": "another"})
