"""The numbers in ``reward_weights`` under a rule that moves weights: their total, signs and zeros.

A rule only handles weights on the simplex. TRL multiplies rewards by arbitrary numbers (ones by default). Between the two: the total of the numbers
is kept, a zero leaves a reward out (it is logged, not weighted), a negative number makes it a penalty.
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
        active: numbers of the rewards that are weighed.
        signs: (K,) 1 or -1.
        given: (active,) initial shares, with their signs folded into the rewards.
        total: sum of the weights' absolute values.
    """

    active: tuple[int, ...]
    signs: tuple[float, ...]
    given: Vector
    total: float

    @classmethod
    def of(cls, weights: Sequence[float] | None, count: int, *, adaptive: bool) -> RewardScale:
        """Read the weights of ``count`` rewards; those not given (environments append rewards) are ones, as in TRL."""
        numbers = np.ones(count)
        if weights is not None:
            numbers[: len(weights)] = weights
        total = float(np.abs(numbers).sum())
        if not np.isfinite(total) or (adaptive and total == 0):
            raise ConfigError(
                "The weights of the rewards are not a valid start.",
                where="reward_weights",
                expected="finite numbers, not all of them zero",
                found=str(numbers.tolist()),
            )
        signs = np.where(numbers < 0, -1.0, 1.0) if adaptive else np.ones(count)
        active = tuple(np.flatnonzero(numbers).tolist()) if adaptive else tuple(range(count))
        shares = (numbers * signs)[list(active)] / (total or 1.0)
        return cls(active, tuple(signs.tolist()), shares, total)

    @property
    def count(self) -> int:
        """Number of rewards that are weighed."""
        return len(self.active)

    @property
    def initial(self) -> tuple[float, ...] | None:
        """Shares at the start; None where they are equal."""
        return None if np.ptp(self.given) == 0 else tuple(self.given.tolist())

    def rewards(self, rewards: Tensor) -> Tensor:
        """(N, active) of rewards (N, K): those that are weighed, penalties with their sign turned."""
        return rewards[:, list(self.active)] * rewards.new_tensor(self.signs)[list(self.active)]

    def shares(self, weights: Vector) -> Vector:
        """(K,) weights of all rewards that sum to one in absolute value, from a rule's (active,)."""
        whole = np.zeros(len(self.signs))
        whole[list(self.active)] = weights * np.asarray(self.signs)[list(self.active)]
        return whole

    def applied(self, weights: Vector) -> Vector:
        """(K,) weights as TRL multiplies rewards by them, from a rule's (active,)."""
        return self.total * self.shares(weights)

    def restricted(self, preference: tuple[float, ...]) -> tuple[float, ...]:
        """Return the entries of a preference for the weighted rewards."""
        if len(preference) != len(self.signs):
            return preference  # left to the rule, which reports the mismatch
        return tuple(preference[number] for number in self.active)
