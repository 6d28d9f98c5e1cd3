"""The bounds of the nuclear norm, a floor that holds whatever the state, and what plain cloning is."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from taiji.core.errors import InputError
from taiji.models.policy.expert_cloning import (
    ExpertCloning,
    ExpertCloningSettings,
    cloning_loss,
    nuclear_norm,
    permitted_tier,
    retention_tiers,
)

QUICK = ExpertCloningSettings(hidden=16, width=6, centroids=2, batch=64, epochs=15, learning_rate=1e-2, diversity=0.0)


def log(random, count=400):
    """Return states, actions and tiers; the higher a tier, the further its action is turned, whatever the state's first
    number."""
    states, tier = random.normal(size=(count, 4)), random.integers(3, size=count)
    states[:, 1] += 3 * tier
    angle = states[:, 0] + tier
    return states, np.stack([np.cos(angle), np.sin(angle)], axis=1), tier


@pytest.fixture(scope="module")
def fitted():
    return ExpertCloning(QUICK).fit(*log(np.random.default_rng(0)), device="cpu")


@pytest.mark.parametrize(("rows", "width"), [(32, 64), (32, 8), (1, 5)])
def test_bounds_of_the_nuclear_norm(rows, width):
    generator = torch.Generator().manual_seed(rows + width)
    actions = torch.randn(rows, width, dtype=torch.float64, generator=generator)
    least, most = rows**0.5, (rows * min(rows, width)) ** 0.5
    assert least - 1e-12 <= float(nuclear_norm(actions)) <= most + 1e-12
    assert float(nuclear_norm(actions[:1].expand(rows, width))) == pytest.approx(least, abs=1e-9)
    torch.testing.assert_close(
        nuclear_norm(actions), nuclear_norm(7 * actions), rtol=1e-12, atol=0
    )  # no gain by length
    spread = torch.eye(width, dtype=torch.float64)[torch.arange(rows) % width]
    if rows % width == 0 or rows < width:
        assert float(nuclear_norm(spread)) == pytest.approx(most, abs=1e-9)


def test_without_diversity_it_is_behaviour_cloning():
    generator = torch.Generator().manual_seed(0)
    actions, shown = (torch.randn(9, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    plain = (1 - functional.cosine_similarity(actions, shown)).mean()
    assert cloning_loss(actions, shown, 0.0) == plain
    torch.testing.assert_close(plain - cloning_loss(actions, shown, 0.2), 0.2 * nuclear_norm(actions) / 6)


def test_diversity_spreads_actions():
    """States tell nothing: plain cloning collapses on the mean action, and the nuclear norm draws the batch apart."""
    random = np.random.default_rng(0)
    states, actions = random.normal(size=(128, 4)), random.normal(size=(128, 4)) + 0.3
    tier, norms = np.zeros(128, np.int64), []
    for diversity in (0.0, 1.0):
        settings = QUICK.model_copy(update={"tiers": 1, "diversity": diversity})
        made = ExpertCloning(settings).fit(states, actions, tier, device="cpu")
        norms.append(float(nuclear_norm(torch.from_numpy(made.act(states, tier)))))
    assert norms[1] > 1.05 * norms[0]


def test_tiers_of_users():
    assert retention_tiers(np.array([1, 9, 2, 5, 6, 7]), 3).tolist() == [0, 2, 0, 1, 1, 2]
    assert retention_tiers(np.array([4, 4, 4]), 3).tolist() == [0, 0, 0]  # nobody stands out
    assert retention_tiers(np.array([4, 1]), 1).tolist() == [0, 0]


def test_the_floor_and_the_cap_hold_for_any_distances():
    random = np.random.default_rng(0)
    for tiers in (1, 2, 3, 7):
        distances, level = random.exponential(size=(5000, tiers)), random.integers(tiers, size=5000)
        found = permitted_tier(distances, level)
        assert (found >= level).all() and (found <= np.minimum(level + 1, tiers - 1)).all()
        above = np.minimum(level + 1, tiers - 1)
        each = np.arange(5000)
        assert (found == np.where(distances[each, above] < distances[each, level], above, level)).all()


def test_the_floor_holds_in_any_state(fitted):
    random = np.random.default_rng(1)
    states, level = 10 * random.normal(size=(2000, 4)), random.integers(3, size=2000)
    found = fitted.tiers(states, level)
    assert (found >= level).all() and (found <= level + 1).all() and found.max() == 2


def test_a_tier_is_recognised_by_its_states(fitted):
    states, _, tier = log(np.random.default_rng(2))
    below = np.maximum(tier - 1, 0)  # both the tier below and their own are open to them
    assert (fitted.tiers(states, below)[tier > 0] == tier[tier > 0]).mean() > 0.8


def test_a_tiers_actions_are_imitated(fitted):
    states, actions, tier = log(np.random.default_rng(3))
    top = tier == 2
    found = fitted.act(states[top], tier[top])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert (found * actions[top]).sum(axis=1).mean() > 0.8
    vectors = np.stack([actions[top], -5 * actions[top]], axis=1)
    prior = fitted.prior(states[top], tier[top], vectors)
    np.testing.assert_allclose(prior[:, 0], -prior[:, 1], atol=1e-12)


def test_it_comes_back_from_disk(fitted, tmp_path):
    states, _, tier = log(np.random.default_rng(4), 50)
    fitted.save(tmp_path / "cloning")
    loaded = ExpertCloning.load(tmp_path / "cloning")
    assert loaded.version == fitted.version
    np.testing.assert_array_equal(loaded.act(states, tier), fitted.act(states, tier))


def test_a_seed_decides_everything():
    short = QUICK.model_copy(update={"epochs": 1})
    versions = [
        ExpertCloning(short).fit(*log(np.random.default_rng(0), 100), seed=seed, device="cpu").version
        for seed in (1, 1, 2)
    ]
    assert versions[0] == versions[1] != versions[2]


def test_tiers_that_do_not_fit_are_said(fitted):
    states, actions, tier = log(np.random.default_rng(0), 40)
    for wrong in (np.zeros(40, np.int64), tier + 1, tier - 1):
        with pytest.raises(InputError):
            ExpertCloning(QUICK).fit(states, actions, wrong)
    with pytest.raises(InputError):
        fitted.tiers(states, tier + 1)
