"""The learnt policy: losses of a world in which they are known, and the share that the load asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from taiji.core.errors import ArtifactError, ConfigError, InputError
from taiji.models.policy.cache_critics import CacheCritics, CacheCriticsSettings
from taiji.models.policy.session_returns import NO_ROW
from taiji.serving.cache_critics_policy import DAY_US, FEATURES, ByCritics, request_features
from taiji.serving.cache_policies import Situation, make_policy

CHAIN = [[0.7, 0.3], [0.4, 0.6]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Critics of requests that are worth 1 in real time, and 0.2 a log of minutes of age less from the cache."""
    random = np.random.default_rng(0)
    n = 4000
    situations = [
        Situation(True, 0.0, int(time), float(age), int(seen), int(since))
        for time, age, seen, since in zip(
            random.integers(DAY_US, size=n), random.uniform(0, 3600, n), random.integers(30, size=n), random.integers(5, size=n)
        )
    ]  # fmt: skip
    features = np.stack([request_features(one) for one in situations])
    level = random.integers(2, size=n)
    rewards = 1 - 0.2 * features[:, 3] * level
    settings = CacheCriticsSettings(levels=2, discount=0.0, ridge=1e-9)
    made = CacheCritics(settings).fit(features, np.full(n, NO_ROW), level, rewards)
    place = tmp_path_factory.mktemp("critics") / "critics"
    made.save(place)
    return place


def test_the_loss_is_what_the_cache_costs(folder: Path) -> None:
    policy = ByCritics(folder, CHAIN)
    for age in (0.0, 600.0, 3000.0):
        loss = policy.loss(Situation(True, 0.0, 5, age, 3, 1))
        assert loss == pytest.approx(0.2 * np.log1p(age / 60), abs=1e-5)


def test_the_load_says_which_share_comes_from_the_cache_and_the_smallest_losses_do(folder: Path) -> None:
    policy, random = make_policy("critics", {"critics": str(folder), "chain": CHAIN}), np.random.default_rng(1)
    ages = random.uniform(0, 3600, 1500)
    asked = [Situation(True, 0.3, 0, float(age), 3, 1) for age in ages]
    cached = np.array([policy.from_cache(one) for one in asked])[500:]
    assert 0.25 < cached.mean() < 0.35
    assert ages[500:][cached].max() < np.quantile(ages[500:][~cached], 0.2)
    assert not any(policy.from_cache(replace(one, load=0.0)) for one in asked[:20])
    assert all(policy.from_cache(replace(one, room=False)) for one in asked[:20])


def test_the_features_do_not_tell_the_load() -> None:
    one = Situation(True, 0.0, DAY_US // 4, 60.0, 1, 0)
    np.testing.assert_allclose(request_features(one), [1, 1, 0, np.log(2), np.log(2), 0], atol=1e-12)
    np.testing.assert_array_equal(request_features(one), request_features(replace(one, load=1.0, room=False)))


def test_other_critics_and_chains_are_refused(folder: Path, tmp_path: Path) -> None:
    other = CacheCritics().fit(np.eye(2), np.array([NO_ROW, NO_ROW]), np.array([0, 1]), np.ones(2))
    other.save(tmp_path / "other")
    with pytest.raises(ConfigError, match=str(FEATURES)):
        ByCritics(tmp_path / "other", CHAIN)
    with pytest.raises(InputError):
        ByCritics(folder, [[0.7, 0.4], [0.4, 0.6]])
    with pytest.raises(ArtifactError):
        ByCritics(tmp_path / "nothing", CHAIN)
