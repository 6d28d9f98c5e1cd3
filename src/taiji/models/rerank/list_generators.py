"""Generators of lists for one request: beam search, perturbed MMR and DPP, and permutations of the first positions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import ListGenerator, Requests, Slate
from taiji.core.errors import ConfigError, InputError
from taiji.models.rerank.diversity import DPP, MMR

Array = NDArray[Any]
PLACES = "places"
MOST_IN_HEAD = 7
"""Largest number of first positions of which all permutations are enumerated (7! = 5040)."""


class BeamLists:
    """Beam search where the next item has probability softmax(sharpness · (λ score − (1 − λ) largest cosine to the
    items already in the list)).

    The distribution has a closed form, so nothing is learnt. At each step, the K most probable prefixes are kept, where
    K is the number of requested lists. The search is exact if there are never more than K prefixes.

    Args:
        vectors: (N, d) vectors of all items.
        relevance: λ in [0, 1].
        sharpness: factor of the softmax, above 0.
    """

    def __init__(self, vectors: Array, relevance: float = 0.7, sharpness: float = 5.0) -> None:
        if not (0 <= relevance <= 1 and sharpness > 0):
            raise ConfigError(
                "A parameter of the beam is out of range.",
                where="relevance, sharpness",
                expected="λ in [0, 1], a sharpness above 0",
                found=f"{relevance}, {sharpness}",
            )
        norm = np.linalg.norm(np.asarray(vectors, np.float64), axis=1, keepdims=True)
        self.vectors = np.asarray(vectors, np.float64) / np.where(norm > 0, norm, 1.0)
        self.relevance, self.sharpness = relevance, sharpness

    def propose(self, requests: Requests, slate: Slate, lists: int, length: int) -> Array:
        """Return positions in the slate (B, K, L), the most probable list first. If fewer than ``lists`` lists exist,
        some are repeated."""
        _enough(slate, length)
        assert slate.scores is not None
        own = self.vectors[np.where(slate.mask, slate.items, 0)]
        cosines = own @ own.transpose(0, 2, 1)
        b, m = slate.items.shape
        prefixes = np.zeros((b, 1, 0), np.int64)
        total = np.zeros((b, 1))
        closest = np.zeros((b, 1, m))
        free = slate.mask[:, None, :]
        rows = np.arange(b)[:, None]
        for step in range(length):
            gain = self.sharpness * (self.relevance * slate.scores[:, None] - (1 - self.relevance) * closest)
            gain = np.where(free, gain, -np.inf)
            top = gain.max(axis=2, keepdims=True)
            law = gain - np.where(np.isfinite(top), top, 0.0)
            with np.errstate(divide="ignore"):
                law = law - np.log(np.exp(law).sum(axis=2, keepdims=True))
            reached = np.where(free, total[:, :, None] + law, -np.inf).reshape(b, -1)
            best = np.argsort(-reached, axis=1, kind="stable")[:, :lists]
            beam, place = best // m, best % m
            total = np.take_along_axis(reached, best, axis=1)  # −inf for invalid prefixes, which contain an item twice
            prefixes = np.concatenate([prefixes[rows, beam], place[..., None]], axis=2)
            near = cosines[rows, place]
            closest = near if step == 0 else np.maximum(closest[rows, beam], near)
            free = free[rows, beam] & (np.arange(m) != place[..., None])
        reachable = np.isfinite(
            total
        )  # the best list comes first, and is repeated if there are fewer lists than requested
        prefixes = np.where(reachable[..., None], prefixes, prefixes[:, :1])
        return np.asarray(prefixes[:, np.arange(lists) % prefixes.shape[1]])


class SampledLists:
    """Lists by MMR or DPP with perturbed scores; the first list uses the unperturbed scores.

    Args:
        vectors: (N, d) vectors of all items.
        kind: ``mmr`` for :class:`MMR`, or ``dpp`` for :class:`DPP`.
        strength: weight of the scores against diversity: ``relevance`` of :class:`MMR`, or ``strength`` of
            :class:`DPP`.
        noise: standard deviation of the normal noise that is added to the scores.
        seed: random seed. The noise depends only on the seed, the user and the time, so that a request always gets the
            same lists.
    """

    def __init__(
        self,
        vectors: Array,
        kind: Literal["mmr", "dpp"] = "dpp",
        strength: float = 0.7,
        noise: float = 0.3,
        seed: int = 0,
    ) -> None:
        self.reranker = MMR(vectors, strength) if kind == "mmr" else DPP(vectors, strength)
        self.noise, self.seed = noise, seed

    def propose(self, requests: Requests, slate: Slate, lists: int, length: int) -> Array:
        """Return positions in the slate (B, K, L)."""
        _enough(slate, length)
        assert slate.scores is not None
        b, m = slate.items.shape
        noise = np.zeros((b, lists, m))
        for row, (user, time) in enumerate(zip(requests.same_user.tolist(), requests.time.tolist())):
            random = np.random.default_rng([self.seed, user % 2**32, time % 2**63])
            noise[row, 1:] = random.normal(size=(m, lists - 1)).T  # padding comes last, so it changes no other draw
        places = np.broadcast_to(np.arange(m), (b, m))
        return np.stack(
            [
                self.reranker.rerank(
                    requests,
                    Slate(slate.items, slate.scores + self.noise * noise[:, k], columns={PLACES: places}),
                    length,
                ).columns[PLACES]
                for k in range(lists)
            ],
            axis=1,
        )


class HeadPermutations:
    """Lists in the order of the scores, except that their first positions (the head) are permuted.

    Permutations with the fewest swapped pairs come first. If more lists are requested than permutations exist, lists
    are repeated.

    Args:
        head: number of positions to permute.
    """

    def __init__(self, head: int = 4) -> None:
        if not 1 <= head <= MOST_IN_HEAD:
            raise ConfigError(
                "The head has an invalid length.",
                where="head",
                expected=f"1 to {MOST_IN_HEAD} positions",
                found=str(head),
            )
        self.head = head

    def propose(self, requests: Requests, slate: Slate, lists: int, length: int) -> Array:
        """Return positions in the slate (B, K, L). The first list is in the order of the scores."""
        _enough(slate, length)
        assert slate.scores is not None
        order = np.argsort(np.where(slate.mask, -slate.scores, np.inf), axis=1, kind="stable")[:, :length]
        head = min(self.head, length)
        orders = sorted(permutations(range(head)), key=_inversions)
        chosen = np.array([orders[k % len(orders)] for k in range(lists)])
        full = np.concatenate([chosen, np.broadcast_to(np.arange(head, length), (lists, length - head))], axis=1)
        return np.asarray(order[:, full])


class MixedLists:
    """Lists from several generators. The requested number of lists is divided as evenly as possible among the
    generators.

    Args:
        generators: generators in the order in which their lists are placed.
    """

    def __init__(self, generators: Sequence[ListGenerator]) -> None:
        if not generators:
            raise ConfigError("There are no generators for mixed lists.", where="generators")
        self.generators = tuple(generators)

    def propose(self, requests: Requests, slate: Slate, lists: int, length: int) -> Array:
        """Return positions in the slate (B, K, L)."""
        counts = [len(part) for part in np.array_split(np.arange(lists), len(self.generators))]
        parts = [g.propose(requests, slate, count, length) for g, count in zip(self.generators, counts) if count]
        return np.concatenate(parts, axis=1)


def _inversions(order: tuple[int, ...]) -> int:
    return sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order)))


def _enough(slate: Slate, length: int) -> None:
    fewest = int(slate.mask.sum(axis=1).min(initial=length))
    if fewest < length:
        raise InputError(
            "A request has fewer candidates than the list has positions.",
            where="slate",
            expected=f"at least {length}",
            found=str(fewest),
            fix="request shorter lists, or handle these requests separately",
        )
