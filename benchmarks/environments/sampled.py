"""Contextual softmax policy with sampled rollouts, for `benchmarks.pareto`: the effect of noise on POPO's indicators.

Gradients over all prompts and arms can be enumerated, so the true indicators are known. A batch has 16 prompts, drawn
from a population of P prompts, and G = 4 rollouts per prompt, as in a GRPO step. There are K rewards, A arms and d
features per prompt. Advantages are differences from the group mean, without division by the standard deviation. The
expectation of the sampled gradient is therefore (G - 1) / G times the enumerated one. Normally distributed noise can be
added to each reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from taiji.nn.weighting_rules import Observation, RuleOptions, make_rule


@dataclass
class Contextual:
    """Softmax policy whose logits over A arms are x theta for the features x of a prompt.

    Attributes:
        seed: seed of prompts and rewards.
        prompts: number of prompts in the population, P.
        arms: number of arms, A.
        dimension: number of features, d.
        noise: (K,) standard deviation of the noise on each reward.
        beta: weight of the KL divergence from the uniform policy, which is part of every loss.
        group: number of rollouts per prompt, G.
        batch: number of prompts per batch.
        contexts: (P, d) features of the prompts.
        rewards: (K, P, A) rewards without noise.
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
        """Return gradients (K, d * A), averaged over B prompts, from the derivatives with respect to the logits (K, B,
        A)."""
        return (np.einsum("bd,kba->kda", self.contexts[chosen], by_logit) / len(chosen)).reshape(len(by_logit), -1)

    def _kl(self, pi: np.ndarray) -> np.ndarray:
        logratio = np.log(pi * self.arms)
        return self.beta * pi * (logratio - (pi * logratio).sum(1, keepdims=True))

    def exact(self, theta: np.ndarray) -> np.ndarray:
        """Return the enumerated gradients (K, d * A) over the whole population. The part from the rewards is multiplied
        by (G - 1) / G, as in the expectation of the sampled gradients."""
        every = np.arange(self.prompts)
        pi = self.policy(theta, every)
        mean = np.einsum("pa,kpa->kp", pi, self.rewards)
        return self._through(
            every, -(self.group - 1) / self.group * pi * (self.rewards - mean[:, :, None]) + self._kl(pi)
        )

    def sample(self, theta: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw one batch.

        Returns:
            gradients (2, K, d * A), each averaged over one half of the prompts; rewards (batch * G, K); and advantages
            (K, batch, G).
        """
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
    """Return the same-batch and the cross-batch indicators (K,) of one batch.

    An indicator is the inner product of a reward's gradient with the sum of all rewards' gradients. The same-batch form
    takes both from the whole batch, the cross-batch form takes them from different halves.
    """
    whole = halves.mean(0)
    same = whole @ whole.sum(0)
    cross = (halves[0] @ halves[1].sum(0) + halves[1] @ halves[0].sum(0)) / 2
    return same, cross


def train(
    problem: Contextual, estimator: str, options: RuleOptions, *, steps: int, rate: float, seed: int, name: str = "popo"
) -> tuple[np.ndarray, np.ndarray]:
    """Train on sampled batches under a weighting rule.

    Args:
        problem: the problem.
        estimator: ``same-batch`` or ``cross-batch``, the estimator of the Gram matrix.
        options: options of the rule.
        steps: number of steps.
        rate: step size.
        seed: seed of the batches.
        name: weighting rule.

    Returns:
        weights (steps + 1, K) before each step and at the end, and the final enumerated gradients (K, d * A).
    """
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
