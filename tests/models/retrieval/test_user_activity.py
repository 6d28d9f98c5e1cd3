"""Features by hand, the regression's first-order condition, and users who come told from those who do not."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.retrieval.user_activity import PENALTY, activity_chances, activity_features, fit_activity


def test_features():
    active = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    found = activity_features(active)
    np.testing.assert_allclose(found[0], [1, 1 / 3, 2 / 7, 2 / 14, 2 / 30, 1])
    np.testing.assert_allclose(found[1], 0)
    np.testing.assert_allclose(found[2], [0, 1 / 3, 1 / 7, 1 / 14, 1 / 30, 1 / 3])
    assert not activity_features(active[:, :0]).any()


def test_regression_is_at_its_optimum_and_tells_users_apart():
    random = np.random.default_rng(0)
    rate = random.choice([0.1, 0.8], 200)
    active = random.random((200, 20)) < rate[:, None]
    found = fit_activity(active)
    x = np.concatenate([np.c_[activity_features(active[:, :day]), np.ones(200)] for day in range(13, 20)])
    y = np.concatenate([active[:, day] for day in range(13, 20)])
    gradient = x.T @ (y - 1 / (1 + np.exp(-x @ found))) - PENALTY * np.r_[found[:-1], 1e-6 * found[-1]]
    assert np.abs(gradient).max() < 1e-8
    chances = activity_chances(active, found)
    assert abs(chances[rate == 0.8].mean() - 0.8) < 0.05 and abs(chances[rate == 0.1].mean() - 0.1) < 0.05


@pytest.mark.parametrize("value", [0, 1], ids=["nobody", "everybody"])
def test_users_who_are_all_alike(value):
    chances = activity_chances(*(lambda active: (active, fit_activity(active)))(np.full((30, 5), bool(value))))
    assert np.isfinite(chances).all() and abs(chances - value).max() < 0.05


def test_one_day_teaches_nothing():
    with pytest.raises(InputError, match="fewer than two days"):
        fit_activity(np.ones((5, 1), bool))
