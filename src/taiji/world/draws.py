"""Random numbers without state: each is a hash of seed, owner, purpose (the name of its use) and keys.

With a sequential generator, one additional draw changes all later numbers. Here a number depends only on the world's
seed, the draw's owner and purpose, and keys (a user, the index of the user's request, a position). It does not depend
on other draws, batching or order. Two worlds that differ in one mechanism share the draws of all other mechanisms, even
if their users come and go at different times.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Keys = Array | int
"""Integers; several keys of one draw broadcast against each other."""
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11, _S32 = (np.uint64(n) for n in (30, 27, 31, 11, 32))
_LOW, _ONE = np.uint64(0xFFFFFFFF), np.uint64(1)


def folded(*keys: Keys) -> Array:
    """Return one key (uint64) for each broadcast combination of keys.

    A draw with the folded key equals the draw with the original keys, and is cheaper.
    """
    state: Any = _STEP
    for key in keys:
        state = _mixed(state + (np.atleast_1d(np.asarray(key, dtype=np.int64)).astype(np.uint64) + _ONE) * _STEP)
    return np.asarray(state)


class Draws:
    """Draws of one owner in one world.

    Args:
        seed: random seed of the world.
        owner: name of the mechanism or other owner of the draws.
    """

    def __init__(self, seed: int, owner: str) -> None:
        self.seed, self.owner = seed, owner
        self._starts: dict[str, Any] = {}

    def bits(self, purpose: str, *keys: Keys) -> Array:
        """Return 64 random bits for each broadcast combination of keys, or for each folded key."""
        state = self._starts.get(purpose)
        if state is None:
            digest = hashlib.blake2b(f"{self.seed}/{self.owner}/{purpose}".encode(), digest_size=8).digest()
            state = self._starts[purpose] = np.frombuffer(digest, dtype="<u8").astype(np.uint64)[0]
        first = keys[0]
        known = len(keys) == 1 and isinstance(first, np.ndarray) and first.dtype == np.uint64
        return np.asarray(_mixed(_mixed(state + (first if known else folded(*keys)))))

    def uniform(self, purpose: str, *keys: Keys) -> Array:
        """Return numbers in the open interval (0, 1)."""
        return ((self.bits(purpose, *keys) >> _S11).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, purpose: str, *keys: Keys) -> Array:
        """Return standard normal numbers (Box and Muller, from the two halves of the bits)."""
        bits = self.bits(purpose, *keys)
        radius = np.sqrt(-2 * np.log(((bits >> _S32).astype(np.float64) + 0.5) * 2.0**-32))
        return np.asarray(radius * np.cos(2 * np.pi * 2.0**-32 * (bits & _LOW).astype(np.float64)))

    def exponential(self, purpose: str, *keys: Keys) -> Array:
        """Return exponential numbers with mean 1."""
        return np.asarray(-np.log(self.uniform(purpose, *keys)))

    def logistic(self, purpose: str, *keys: Keys) -> Array:
        """Return standard logistic numbers."""
        uniform = self.uniform(purpose, *keys)
        return np.asarray(np.log(uniform / (1 - uniform)))

    def integers(self, purpose: str, below: int, *keys: Keys) -> Array:
        """Return integers from 0 to ``below`` − 1."""
        return np.minimum((self.uniform(purpose, *keys) * below).astype(np.int64), below - 1)

    def choice(self, purpose: str, weights: Array, *keys: Keys) -> Array:
        """Return indices into the last axis of ``weights`` (…, S), drawn in proportion to the weights.

        The keys have the shape of the other axes.
        """
        steps = np.cumsum(weights, axis=-1)
        point = self.uniform(purpose, *keys)[..., None] * steps[..., -1:]
        return np.minimum((steps <= point).sum(axis=-1), weights.shape[-1] - 1)


def _mixed(state: Any) -> Any:
    """Apply the output function of SplitMix64 (Steele, Lea and Flood, *OOPSLA* 2014) to a 64-bit state."""
    state = (state ^ (state >> _S30)) * _FIRST
    state = (state ^ (state >> _S27)) * _SECOND
    return state ^ (state >> _S31)
