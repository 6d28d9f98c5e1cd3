"""Problems with exact gradients: quadratics and KL-regularised bandits, float64.

Each problem gives a (K, P) matrix of loss gradients; the rules of ``taiji.nn.weighting_rules`` read its Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from taiji.nn.objective_weights import min_norm
from taiji.nn.weighting_rules import Observation, RuleOptions, make_rule


@dataclass
class Quadratics:
    """L_i = a_i / 2 ||theta - c_i||^2; the minimum for weights w is theta(w) = sum w a c / sum w a."""

    a: np.ndarray
    c: np.ndarray

    def start(self) -> np.ndarray:
        return np.zeros(self.c.shape[1])

    def gradients(self, theta: np.ndarray) -> np.ndarray:
        return self.a[:, None] * (theta - self.c)

    def solution(self, weights: np.ndarray) -> np.ndarray:
        mixed = np.asarray(weights) * self.a
        return mixed @ self.c / mixed.sum()


@dataclass
class Bandit:
    """Softmax policy over arms; L_k = -E[r_k] + inside * beta KL(pi || ref), plus outside * beta KL in every update.

    Attributes:
        rewards: (K, A), already scaled.
        beta: KL strength; 0 is the KL-free bandit.
        kl_inside: True if the KL term is part of the losses that the rule reads; otherwise it is added to every update.
    """

    rewards: np.ndarray
    beta: float
    kl_inside: bool = True

    def start(self) -> np.ndarray:
        return np.zeros(self.rewards.shape[1])

    def policy(self, theta: np.ndarray) -> np.ndarray:
        shifted = np.exp(theta - theta.max())
        return shifted / shifted.sum()

    def kl_gradient(self, theta: np.ndarray) -> np.ndarray:
        pi = self.policy(theta)
        logratio = np.log(np.maximum(pi, 1e-300) * len(pi))
        return self.beta * pi * (logratio - pi @ logratio)

    def gradients(self, theta: np.ndarray) -> np.ndarray:
        pi = self.policy(theta)
        return -pi * (self.rewards - (self.rewards @ pi)[:, None]) + (
            self.kl_gradient(theta) if self.kl_inside else 0.0
        )

    def common(self, theta: np.ndarray) -> np.ndarray:
        return np.zeros_like(theta) if self.kl_inside else self.kl_gradient(theta)

    def gibbs(self, weights: np.ndarray) -> np.ndarray:
        """Return the optimal policy for weights: pi_ref exp(sum w r / beta) / Z."""
        return self.policy(np.asarray(weights) @ self.rewards / self.beta)

    def values(self, theta: np.ndarray) -> np.ndarray:
        return self.rewards @ self.policy(theta)


@dataclass
class Path:
    """Result of a run."""

    theta: np.ndarray
    weights: np.ndarray
    """(steps + 1, K)."""
    residual: float
    """Length of the shortest convex combination of the final gradients: zero at Pareto-stationary points."""


def descend(
    problem: Quadratics | Bandit,
    name: str,
    options: RuleOptions,
    *,
    steps: int,
    rate: float,
    precondition: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """Run gradient descent on sum_k w_k L_k, where the rule ``name`` sets w from the exact Gram matrix."""
    theta = problem.start()
    rule = make_rule(name, len(problem.gradients(theta)), options)
    weights = [rule.weights]
    for _ in range(steps):
        g = problem.gradients(theta)
        before = rule.weights
        if rule.source == "gradients":
            rule.observe(Observation(gram=g @ g.T, square_norm=float((g**2).sum(1).mean())))
        applied = rule.weights if rule.fresh else before
        step = applied @ g + (problem.common(theta) if isinstance(problem, Bandit) else 0.0)
        theta = theta - rate * (precondition(step) if precondition else step)
        weights.append(rule.weights)
    g = problem.gradients(theta)
    if isinstance(problem, Bandit) and not problem.kl_inside:
        g = g + problem.common(theta)
    gram = g @ g.T
    shortest = min_norm(gram)
    return Path(theta, np.array(weights), float(np.sqrt(max(shortest @ gram @ shortest, 0.0))))


def two_rewards(seed: int, arms: int = 8) -> np.ndarray:
    """Return two rewards in [0, 1] with a correlation of about -0.5 over the arms, (2, A)."""
    rng = np.random.default_rng([seed, 11])
    z = rng.normal(size=(2, arms))
    values = np.stack([z[0], -0.6 * z[0] + 0.8 * z[1]])
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    return (values - low) / (high - low)
