"""Interpretation of ``reward_weights`` under a rule that changes weights: total, signs and zeros.

A rule handles only weights on the simplex, while TRL multiplies rewards by arbitrary numbers (ones by default). This
module converts between the two: the total of the numbers is preserved, a zero excludes a reward (it is logged but not
weighted), and a negative number makes the reward a penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from taiji.core.errors import ConfigError
from taiji.nn.objective_weights import Vector


@dataclass(frozen=True)
class RewardScale:
    """Total, signs and zeros of K reward weights.

    Args:
        active: indices of the rewards that have a weight: under an adaptive rule, those whose weight is not 0;
            otherwise all.
        signs: (K,) 1 or -1.
        given: (active,) initial shares. With an adaptive rule they are non-negative, and :meth:`rewards` applies the
            signs.
        total: sum of the weights' absolute values.
    """

    active: tuple[int, ...]
    signs: tuple[float, ...]
    given: Vector
    total: float

    @classmethod
    def of(cls, weights: Sequence[float] | None, count: int, *, adaptive: bool) -> RewardScale:
        """Interpret the weights of ``count`` rewards.

        If there are fewer weights than rewards, the remaining rewards have weight 1, because TRL appends the rewards of
        environments to the user's rewards, with this weight.
        """
        numbers = np.ones(count)
        if weights is not None:
            numbers[: len(weights)] = weights
        total = float(np.abs(numbers).sum())
        if not np.isfinite(total) or (adaptive and total == 0):
            raise ConfigError(
                "The reward weights are not a valid starting point.",
                where="reward_weights",
                expected="finite numbers, at least one of them not zero",
                found=str(numbers.tolist()),
            )
        signs = np.where(numbers < 0, -1.0, 1.0) if adaptive else np.ones(count)
        active = tuple(np.flatnonzero(numbers).tolist()) if adaptive else tuple(range(count))
        shares = (numbers * signs)[list(active)] / (total or 1.0)
        return cls(active, tuple(signs.tolist()), shares, total)

    @property
    def count(self) -> int:
        """Number of weighted rewards."""
        return len(self.active)

    @property
    def initial(self) -> tuple[float, ...] | None:
        """Initial shares; None if they are equal."""
        return None if np.ptp(self.given) == 0 else tuple(self.given.tolist())

    def rewards(self, rewards: Tensor) -> Tensor:
        """Return the columns (N, active) of rewards (N, K) that have a weight, with penalties negated.

        The values are not multiplied by the weights.
        """
        return rewards[:, list(self.active)] * rewards.new_tensor(self.signs)[list(self.active)]

    def shares(self, weights: Vector) -> Vector:
        """Return the weights of all rewards (K,), whose absolute values sum to one, from a rule's weights (active,)."""
        whole = np.zeros(len(self.signs))
        whole[list(self.active)] = weights * np.asarray(self.signs)[list(self.active)]
        return whole

    def applied(self, weights: Vector) -> Vector:
        """Return the weights (K,) by which TRL multiplies the rewards, from a rule's weights (active,)."""
        return self.total * self.shares(weights)

    def restricted(self, preference: tuple[float, ...]) -> tuple[float, ...]:
        """Return the entries of a preference that belong to weighted rewards."""
        if len(preference) != len(self.signs):
            return preference  # left to the rule, which reports the mismatch
        return tuple(preference[number] for number in self.active)
