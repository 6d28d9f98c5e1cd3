"""Policies that choose lists from public knowledge, and an oracle that uses the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, find_class
from taiji.core.errors import ConfigError
from taiji.world.draws import Draws
from taiji.world.observation import Choice, Observation, SlatePolicy

if TYPE_CHECKING:
    from taiji.world.world import World

Array = NDArray[Any]


class RankingPolicy(ABC):
    """Policy that scores candidates and takes the best ones, or samples by score.

    Args:
        world: world in which the policy acts.
        temperature: with 0, the best candidates are chosen. Above 0, a list is drawn without replacement from the
            softmax of score / temperature (Plackett and Luce), and the propensity of an item is its probability given
            the candidates and the earlier positions.
    """

    def __init__(self, world: World, temperature: float = 0.0) -> None:
        self.temperature, self._draws = temperature, Draws(world.seed, f"policy {type(self).__name__}")

    @abstractmethod
    def scores(self, observation: Observation) -> Array:
        """Return (B, C) scores of the candidates."""

    def choose(self, observation: Observation, length: int) -> Choice:
        """See :class:`~taiji.world.observation.SlatePolicy`."""
        items = observation.candidates.items
        length = min(length, items.shape[1])
        scores = np.where(items == NO_ITEM, -np.inf, self.scores(observation))
        if self.temperature <= 0:
            best = _best(scores, length)
            return Choice(np.take_along_axis(items, best, axis=1))
        user, number = observation.requests.user[:, None], observation.number[:, None]
        uniform = self._draws.uniform("explore", user, number, np.arange(items.shape[1])[None, :])
        scores = scores / self.temperature
        best = _best(scores - np.log(-np.log(uniform)), length)
        top = scores.max(axis=1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
        picked = np.take_along_axis(weights, best, axis=1)
        left = weights.sum(axis=1, keepdims=True) - np.cumsum(picked, axis=1) + picked
        chosen = np.take_along_axis(items, best, axis=1)
        chances = np.clip(picked / np.maximum(left, 1e-300), 1e-12, 1.0)
        return Choice(chosen, np.where(chosen == NO_ITEM, np.nan, chances))


class RandomPolicy(RankingPolicy):
    """Policy that chooses uniformly among all available items.

    The propensity is one over the number of available items, at every position.
    """

    def scores(self, observation: Observation) -> Array:
        """Return uniform random numbers."""
        user, number = observation.requests.user[:, None], observation.number[:, None]
        return self._draws.uniform("order", user, number, np.arange(observation.candidates.items.shape[1])[None, :])

    def choose(self, observation: Observation, length: int) -> Choice:
        """See :class:`~taiji.world.observation.SlatePolicy`."""
        chosen = super().choose(observation, length)
        even = np.broadcast_to(1.0 / np.maximum(observation.pool, 1)[:, None], chosen.items.shape)
        return Choice(chosen.items, np.where(chosen.items == NO_ITEM, np.nan, even))


class PopularPolicy(RankingPolicy):
    """Policy that chooses the items with the highest click rate so far. Each item starts with ten exposures at the
    average rate."""

    def scores(self, observation: Observation) -> Array:
        """Return smoothed click rates of the candidates, relative to the average click rate."""
        public = observation.public
        mean = (public.clicks.sum() + 1) / (public.exposures.sum() + 10)
        rate = (public.clicks + 10 * mean) / (public.exposures + 10) / mean
        return np.asarray(rate[observation.candidates.items])


class ContentPolicy(RankingPolicy):
    """Policy that chooses items with titles similar to the titles that the user clicked."""

    def scores(self, observation: Observation) -> Array:
        """Return the dot products of user profiles and title topics; profiles with a norm above 1 are normalised."""
        profile = observation.public.profile[observation.requests.user]
        known = np.maximum(np.sqrt(np.square(profile).sum(axis=1, keepdims=True)), 1.0)
        by_topic = (profile / known) @ observation.public.text_topics.T
        return np.take_along_axis(by_topic, np.maximum(observation.candidates.items, 0), axis=1)


class OraclePolicy(RankingPolicy):
    """Policy that ranks items by their true expected reward when shown alone, which is hidden from real policies.

    It ignores how the items of a list affect one another, so it is not an upper bound; for that see
    :meth:`taiji.world.truth.Truth.best_slate`.
    """

    def __init__(self, world: World, temperature: float = 0.0) -> None:
        super().__init__(world, temperature)
        self.world = world

    def scores(self, observation: Observation) -> Array:
        """Return expected rewards."""
        return self.world.truth.rewards(observation, observation.candidates.items)


POLICIES: dict[str, type[RankingPolicy]] = {
    "random": RandomPolicy,
    "popular": PopularPolicy,
    "content": ContentPolicy,
    "oracle": OraclePolicy,
}


def make_policy(policy: str | SlatePolicy, world: World) -> SlatePolicy:
    """Return a policy.

    Args:
        policy: one of :data:`POLICIES`, optionally with a temperature (``content@0.2``); ``package.module:Name``, which
            is called with the world; or a policy, which is returned unchanged.
        world: world in which the policy acts.

    Raises:
        ConfigError: no policy has this name, or the temperature is not a finite number of at least 0.
    """
    if not isinstance(policy, str):
        return policy
    name, _, given = policy.partition("@")
    if name in POLICIES:
        try:
            temperature = float(given or 0.0)
        except ValueError:
            temperature = float("nan")
        if not 0.0 <= temperature < float("inf"):
            raise ConfigError(
                "A policy's temperature is not a number of at least 0.",
                where=policy,
                expected="for instance content@0.2",
                found=given,
            )
        return POLICIES[name](world, temperature)
    if ":" in policy:
        made: SlatePolicy = find_class(policy, "taiji.policies", "policy")(world)
        return made
    raise ConfigError(
        "No policy has this name.",
        where=policy,
        expected=f"{', '.join(POLICIES)} (with @TEMPERATURE to explore), or package.module:Name",
    )


def _best(scores: Array, count: int) -> Array:
    """Return (B, count) indices of the highest scores, best first, with deterministic ties."""
    if count < scores.shape[1] // 3:
        top = np.argpartition(-scores, count, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
        return np.take_along_axis(top, order, axis=1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]
