"""Linear policy that is learnt from what whole sessions returned, by a gradient with exploration in its parameters.

Each session has parameters of its own, drawn around the policy's, and keeps them to its end, so that what an action does to later
requests is in the return as it is. With normal draws of spread σ the natural gradient of the expected return is E[(R − b) (θ − θ₀)] (policy
gradients with parameter-based exploration, Sehnke et al. 2010): neither a model of what follows nor a derivative of the score is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]


class SessionPolicy:
    """Actions that are linear in a request's state.

    Args:
        actions: numbers of an action. states: numbers of a state; a constant is added. spread: σ of the parameters that are drawn.

    Attributes:
        parameters: (K, S + 1), all 0 at the beginning; the last column is the constant's.
    """

    def __init__(self, actions: int, states: int, spread: float) -> None:
        self.parameters, self.spread = np.zeros((actions, states + 1)), spread

    def draw(self, sessions: int, random: np.random.Generator) -> Array:
        """Return parameters (N, K, S + 1) for sessions, in pairs on either side of the policy's own."""
        half = random.normal(size=((sessions + 1) // 2, *self.parameters.shape))
        drawn = np.stack([half, -half], axis=1).reshape(-1, *self.parameters.shape)[:sessions]
        return np.asarray(self.parameters + self.spread * drawn)

    def act(self, states: Array, parameters: Array | None = None) -> Array:
        """Return actions (B, K) in states (B, S), by parameters (B, K, S + 1), else the policy's own."""
        own = self.parameters if parameters is None else parameters
        told = np.concatenate([states, np.ones((len(states), 1))], axis=1)
        return np.einsum("...ks,...s->...k", own, told)

    def improve(self, drawn: Array, returns: Array, rate: float) -> None:
        """Go a step along the natural gradient.

        Args:
            drawn: (N, K, S + 1) parameters of the sessions. returns: (N,) what each returned. rate: of the step, for returns
                in their deviations.

        Raises:
            InputError: fewer than two sessions, or a return that is not finite.
        """
        found = np.asarray(returns, np.float64)
        if len(found) < 2 or len(found) != len(drawn) or not np.isfinite(found).all():
            raise InputError(
                "A policy cannot be improved by these sessions.",
                where="returns",
                expected=f"a finite number for each of the {len(drawn)} sessions, of which there are at least two",
                found=f"{len(found)} numbers, {int((~np.isfinite(found)).sum())} of them not finite",
            )
        lead = (found - found.mean()) / max(float(found.std()), 1e-12)
        self.parameters = self.parameters + rate * np.tensordot(lead, drawn - self.parameters, axes=1) / len(found)
