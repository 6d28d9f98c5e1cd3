"""Base class of the rules that weight objectives, with the rules' observations and options.

A rule declares the observation that it needs (``source``): none, the batch's rewards, or the Gram matrix of the
rewards' gradients.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from taiji.core.errors import ConfigError, InputError
from taiji.nn import objective_weights as functions
from taiji.nn.objective_weights import Vector

logger = logging.getLogger(__name__)
Source = Literal["none", "rewards", "gradients"]


@dataclass(frozen=True)
class Observation:
    """Quantities observed on a batch of N rollouts with K rewards.

    Args:
        rewards: (N, K) rewards, NaN where missing, with N = prompts * group.
        group: number of rollouts per prompt.
        gram: (K, K) Gram matrix of the gradients of the rewards' losses, if it is estimated.
        indicators: (K,) POPO's indicators; the gradient estimator ``directional`` computes them instead of ``gram``.
        square_norm: squared norm of a reward's gradient, averaged over the rewards that are present in the batch. It
            includes the noise of the gradients.
        present: (K,) True if at least one rollout of the batch has the reward. If None, it is derived from ``rewards``;
            if ``rewards`` is None as well, all rewards count as present.
    """

    rewards: np.ndarray | None = None
    group: int = 1
    gram: np.ndarray | None = None
    indicators: np.ndarray | None = None
    square_norm: float = 0.0
    present: tuple[bool, ...] | None = None

    @property
    def finite(self) -> bool:
        """True if all estimates are finite. Rewards may be NaN, but not infinite."""
        estimates = [x for x in (self.gram, self.indicators, np.asarray(self.square_norm)) if x is not None]
        return all(np.isfinite(x).all() for x in estimates) and not (
            self.rewards is not None and np.isinf(self.rewards).any()
        )

    def there(self, count: int) -> np.ndarray:
        """Return a mask (K,) of the rewards that are present in the batch."""
        if self.present is not None:
            return np.asarray(self.present, dtype=bool)
        return np.ones(count, dtype=bool) if self.rewards is None else np.isfinite(self.rewards).any(axis=0)


@dataclass(frozen=True)
class Reading:
    """Result of a rule: weights w (K,), indicators (K,) or None, and the largest |change of log w|."""

    weights: Vector
    indicators: Vector | None
    delta: float


@dataclass
class RuleOptions:
    """Options of the rules. Names in parentheses are settings of ``ParetoGRPOConfig``.

    Attributes:
        mode: ``robust`` or ``paper``, the variant of POPO's update (``popo_mode``).
        preference: (K,) positive weights that POPO should reach, up to a factor; None for equal weights.
        initial: (K,) positive weights at the start, up to a factor; None for equal weights (``reward_weights``).
        rate: step size of log w in ``robust`` mode and in other rules (``weight_step``).
        clip: largest |change of log w| per step in ``robust`` mode (``weight_clip``).
        floor: share by which a ``robust`` step pulls the weights towards the preference (``weight_floor``).
        average: decay of moving averages (``weight_average``).
        eta, mu: constants of the paper's update (``popo_eta``, ``popo_mu``).
        warmup: number of steps before weights from gradients start to change (``weight_warmup``).
        seed: random seed of the rules that draw random numbers.
        statistics: ``batch`` or ``group``, the rollouts over which POPO-light computes (``light_statistics``).
    """

    mode: str = "robust"
    preference: tuple[float, ...] | None = None
    initial: tuple[float, ...] | None = None
    rate: float = 0.1
    clip: float = 0.2
    floor: float = 0.05
    average: float = 0.9
    eta: float = 1.0
    mu: float = 1.0
    warmup: int = 0
    seed: int = 0
    statistics: str = "batch"

    def __post_init__(self) -> None:
        for name, value, right, expected in (
            ("weight_step", self.rate, self.rate >= 0, "at least 0"),
            ("weight_clip", self.clip, self.clip > 0, "more than 0"),
            ("weight_floor", self.floor, 0 <= self.floor <= 1, "between 0 and 1"),
            ("weight_average", self.average, 0 <= self.average < 1, "at least 0 and less than 1"),
            ("popo_eta", self.eta, self.eta >= 0, "at least 0"),
            ("popo_mu", self.mu, self.mu > 0, "more than 0"),
            ("weight_warmup", self.warmup, self.warmup >= 0, "at least 0"),
        ):
            if not (np.isfinite(value) and right):
                raise ConfigError(
                    "An option of the reward weights is out of range.", where=name, expected=expected, found=str(value)
                )

    def standing_for(self, steps: int) -> RuleOptions:
        """Return the options with which one observation moves the weights as far as ``steps`` observations."""
        return replace(
            self,
            rate=self.rate * steps,
            clip=self.clip * steps,
            floor=1 - (1 - self.floor) ** steps,
            eta=self.eta * steps,
            warmup=math.ceil(self.warmup / steps),
        )


class Rule:
    """Base class of rules. A rule stores the logarithms of its weights w, counts observations, and measures how far the
    weights move.

    A reward that is missing from a batch keeps its weight and its averages, and the other rewards share the rest of the
    weight. An observation that is not finite is skipped, counted in ``skipped``, and logged. In mode ``paper``, it is
    used instead, and an InputError is raised if the weights are no longer finite.

    Attributes:
        source: observation that the rule needs.
        fresh: True if the weights apply to the batch from which they were computed.
        steered: True if the rule supports a preference between the rewards.
    """

    source: Source = "none"
    fresh: bool = True
    steered: bool = False

    def __init__(self, count: int, options: RuleOptions) -> None:
        for name, value in (("preference", options.preference), ("reward_weights", options.initial)):
            if value is not None and (len(value) != count or not min(value) > 0 or not np.isfinite(value).all()):
                raise ConfigError(
                    f"The values of {name} do not match the rewards.",
                    where=name,
                    expected=f"{count} positive numbers",
                    found=str(tuple(value)),
                )
        if options.preference is not None and not self.steered:
            raise ConfigError(
                f"{type(self).__name__} does not support a preference.",
                where="preference",
                expected="None",
                found=str(tuple(options.preference)),
                fix="set reward_weights for constant weights, or use the weighting 'popo' or 'popo-covariance'",
            )
        self.count, self.options, self.steps, self.skipped = count, options, 0, 0
        self.log_weights = np.log(
            functions.uniform(count) if options.initial is None else functions.normalised(options.initial)
        )

    @property
    def weights(self) -> Vector:
        """Current weights (K,), which are positive and sum to 1."""
        return np.exp(self.log_weights)

    def observe(self, seen: Observation) -> Reading:
        """Update the weights with one observation, and return the result."""
        if not seen.finite and self.options.mode != "paper":
            return self.skip()
        before, indicators = self.log_weights, None
        self.steps += 1
        if self.steps > self.options.warmup or self.source != "gradients":
            new, indicators = self.update(seen)
            if not np.isfinite(new).all():
                raise InputError(
                    "The reward weights are no longer finite.",
                    found=str(np.exp(new)),
                    fix="check the rewards for infinities; use popo_mode='robust'",
                )
            self.log_weights = new
        return Reading(self.weights, indicators, float(np.abs(self.log_weights - before).max()))

    def skip(self) -> Reading:
        """Skip an observation that is not finite, and return the unchanged weights."""
        self.skipped += 1
        logger.warning(
            "A batch's rewards or gradients are not finite: the reward weights stay as they are (skipped so far: %d).",
            self.skipped,
        )
        return Reading(self.weights, None, 0.0)

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        """Return the new log w (K,), and the indicators (K,) or None. The base class leaves log w unchanged."""
        return self.log_weights, None

    def among(self, there: np.ndarray, log_shares: Vector) -> Vector:
        """Return the new log w (K,). The rewards in the mask ``there`` (K,) redistribute their total weight by
        ``log_shares``. All other rewards keep their weights."""
        if there.all():
            return log_shares
        new = self.log_weights.copy()
        if there.any():
            new[there] = log_shares + np.log(self.weights[there].sum())
        return new

    def state(self) -> dict[str, Any]:
        """Return the state as JSON-serialisable values. Floats survive a round trip through JSON bit for bit."""
        return {"log_weights": self.log_weights.tolist(), "steps": self.steps, "skipped": self.skipped}

    def load(self, state: dict[str, Any]) -> None:
        """Restore the rule from :meth:`state`."""
        self.log_weights = np.asarray(state["log_weights"], dtype=np.float64)
        self.steps, self.skipped = int(state["steps"]), int(state["skipped"])


def log_of(weights: Vector) -> Vector:
    """Return the logarithms of weights. Weights below 1e-12 count as 1e-12."""
    return np.log(np.maximum(weights, 1e-12))
