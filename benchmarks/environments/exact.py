"""Problems with exact gradients for `benchmarks.pareto`: quadratics and KL-regularised bandits, in float64.

A problem has K losses and P parameters. Each problem gives the (K, P) matrix of loss gradients. The weighting rules of
``taiji.nn.weighting_rules`` read the Gram matrix of these gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from taiji.nn.objective_weights import min_norm
from taiji.nn.weighting_rules import Observation, RuleOptions, make_rule


@dataclass
class Quadratics:
    """Losses L_k = a_k / 2 ||theta - c_k||^2.

    For weights w, the minimum is at theta(w) = sum_k w_k a_k c_k / sum_k w_k a_k.

    Attributes:
        a: (K,) curvatures.
        c: (K, P) minima.
    """

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
    """Softmax policy pi over A arms, with the losses L_k = -E[r_k].

    A penalty, beta times the KL divergence from the uniform policy, is part of every loss or of the update.

    Attributes:
        rewards: (K, A) rewards of the arms, already scaled.
        beta: strength of the penalty; 0 for none.
        kl_inside: True to add the penalty to every loss, so that the weighting rule sees it; False to add it to the
            update.
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
        """Return the optimal policy for weights w, which is proportional to exp(sum_k w_k r_k / beta)."""
        return self.policy(np.asarray(weights) @ self.rewards / self.beta)

    def values(self, theta: np.ndarray) -> np.ndarray:
        return self.rewards @ self.policy(theta)


@dataclass
class Path:
    """Result of gradient descent.

    Attributes:
        theta: (P,) final parameters.
        weights: (steps + 1, K) weights before each step and at the end.
        residual: length of the shortest convex combination of the final gradients; zero at Pareto-stationary points.
    """

    theta: np.ndarray
    weights: np.ndarray
    residual: float


def descend(
    problem: Quadratics | Bandit,
    name: str,
    options: RuleOptions,
    *,
    steps: int,
    rate: float,
    precondition: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """Run gradient descent on sum_k w_k L_k, where a rule sets the weights w from the exact Gram matrix.

    Args:
        problem: the problem, which gives start and gradients.
        name: name of the weighting rule.
        options: options of the rule.
        steps: number of steps.
        rate: step size.
        precondition: function that transforms each update; None for plain gradient descent.
    """
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
    """Return two rewards (2, A) in [0, 1], drawn with a correlation of -0.6 over the arms."""
    rng = np.random.default_rng([seed, 11])
    z = rng.normal(size=(2, arms))
    values = np.stack([z[0], -0.6 * z[0] + 0.8 * z[1]])
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    return (values - low) / (high - low)
