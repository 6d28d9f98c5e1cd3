"""A contextual softmax policy with sampled rollouts: what noise does to indicators, with enumerated gradients as truth.

Prompts are drawn from a population; a batch is 16 prompts of G = 4 rollouts, as in a GRPO step. Advantages are
mean-only, so that the expectation of the sampled gradient is (G - 1) / G times the enumerated one; noise is N(0, sigma)
on a reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from taiji.nn.weighting_rules import Observation, RuleOptions, make_rule


@dataclass
class Contextual:
    """Logits = x theta over A arms for a population of prompts x.

    Attributes:
        rewards: (K, P, A) mean rewards.
        contexts: (P, d).
        noise: (K,) standard deviation of the noise on each sampled reward.
        beta: KL strength to the uniform policy, inside every loss.
    """

    seed: int
    prompts: int = 256
    arms: int = 8
    dimension: int = 6
    noise: tuple[float, ...] = (0.0, 0.0)
    beta: float = 0.3
    group: int = 4
    batch: int = 16
    contexts: np.ndarray = field(init=False)
    rewards: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 21])
        self.contexts = rng.normal(size=(self.prompts, self.dimension)) / np.sqrt(self.dimension)
        z = rng.normal(size=(2, self.dimension, self.arms))
        maps = np.stack([z[0], -0.5 * z[0] + 0.87 * z[1]])
        self.rewards = 1 / (1 + np.exp(-2 * np.einsum("pd,kda->kpa", self.contexts, maps)))

    def policy(self, theta: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        logits = self.contexts[chosen] @ theta
        e = np.exp(logits - logits.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def _through(self, chosen: np.ndarray, by_logit: np.ndarray) -> np.ndarray:
        """Return gradients (K, d * A) from derivatives by logits (K, B, A), averaged over prompts."""
        return (np.einsum("bd,kba->kda", self.contexts[chosen], by_logit) / len(chosen)).reshape(len(by_logit), -1)

    def _kl(self, pi: np.ndarray) -> np.ndarray:
        logratio = np.log(pi * self.arms)
        return self.beta * pi * (logratio - (pi * logratio).sum(1, keepdims=True))

    def exact(self, theta: np.ndarray) -> np.ndarray:
        """Return the enumerated gradients (K, d * A) over the whole population, with the factor (G - 1) / G of the
        sampled estimate on the rewards."""
        every = np.arange(self.prompts)
        pi = self.policy(theta, every)
        mean = np.einsum("pa,kpa->kp", pi, self.rewards)
        return self._through(
            every, -(self.group - 1) / self.group * pi * (self.rewards - mean[:, :, None]) + self._kl(pi)
        )

    def sample(self, theta: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw one batch, and return the gradients of both halves of its prompts (2, K, d * A), each a mean over its
        half, the rewards (N, K), and the advantages (K, batch, G)."""
        chosen = rng.integers(0, self.prompts, self.batch)
        pi = self.policy(theta, chosen)
        actions = (pi.cumsum(1)[:, None, :] < rng.random((self.batch, self.group, 1))).sum(2).clip(max=self.arms - 1)
        rewards = np.stack([self.rewards[k, chosen[:, None], actions] for k in range(len(self.rewards))])
        rewards = rewards + np.asarray(self.noise)[:, None, None] * rng.normal(size=rewards.shape)
        advantage = rewards - rewards.mean(2, keepdims=True)
        onehot = np.eye(self.arms)[actions]
        by_logit = -np.einsum("kbg,bga->kba", advantage, onehot - pi[:, None, :]) / self.group + self._kl(pi)
        halves = np.stack([self._through(chosen[h::2], by_logit[:, h::2]) for h in (0, 1)])
        return halves, rewards.reshape(len(rewards), -1).T, advantage


def indicators(halves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same-batch and the cross-batch indicators of one batch, (K,) each."""
    whole = halves.mean(0)
    same = whole @ whole.sum(0)
    cross = (halves[0] @ halves[1].sum(0) + halves[1] @ halves[0].sum(0)) / 2
    return same, cross


def train(
    problem: Contextual, estimator: str, options: RuleOptions, *, steps: int, rate: float, seed: int, name: str = "popo"
) -> tuple[np.ndarray, np.ndarray]:
    """Train on sampled batches under a rule; return the weights at every step (steps + 1, K) and the final exact
    gradients (K, d * A)."""
    rng = np.random.default_rng([seed, 22])
    theta = np.zeros((problem.dimension, problem.arms))
    rule = make_rule(name, 2, options)
    path = [rule.weights]
    for _ in range(steps):
        halves, rewards, _ = problem.sample(theta, rng)
        whole = halves.mean(0)
        before = rule.weights
        gram = whole @ whole.T if estimator == "same-batch" else (halves[0] @ halves[1].T + halves[1] @ halves[0].T) / 2
        if rule.source == "gradients":
            rule.observe(Observation(gram=gram, square_norm=float((whole**2).sum(1).mean())))
        elif rule.source == "rewards":
            rule.observe(Observation(rewards=rewards, group=problem.group))
        applied = rule.weights if rule.fresh else before
        theta = theta - rate * (applied @ whole).reshape(theta.shape)
        path.append(rule.weights)
    return np.array(path), problem.exact(theta)
