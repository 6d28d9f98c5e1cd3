"""Evaluation of all candidate lists of a request in one pass, with attention across the lists (FlashEvaluator, arXiv
2603.02565)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn

from taiji.core.component import NO_ITEM, ListEvaluator, ListGenerator, Requests, Slate
from taiji.core.errors import ArtifactError, InputError
from taiji.core.settings import Settings as Base
from taiji.models.learnt_component import LearntComponent
from taiji.models.rerank.list_generators import BeamLists, HeadPermutations, MixedLists, SampledLists

Array = NDArray[Any]
HISTORY = "history"
"""Column of the requests with the items (B, H) in the user's history, padded with −1. Without this column, all
histories are empty."""


class JointEvaluatorSettings(Base):
    """Settings of the joint evaluator."""

    width: PositiveInt = 32
    heads: PositiveInt = 2
    length: PositiveInt = 20
    """Number of learnt position vectors, and thus the largest length of a list."""
    across: bool = True
    """True to let the lists of a request attend to one another. If False, the score of a list does not depend on the
    other lists."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the softmax that turns the rewards of a request's lists into target probabilities. Before that,
    the rewards are divided by their standard deviation within requests."""
    epochs: PositiveInt = 20
    batch: PositiveInt = 64
    """Number of requests per step."""
    rate: float = Field(default=2e-3, gt=0)


@dataclass(frozen=True, eq=False)
class JudgedLists:
    """Lists with their rewards.

    Attributes:
        requests: B requests.
        slate: candidates.
        lists: (B, K, L) K lists per request, as positions in the slate.
        rewards: (B, K) rewards of the lists, from a simulator or a counterfactual estimate. Logged rewards do not
            suffice, because a log has only one list per request, which cannot be compared with another.
    """

    requests: Requests
    slate: Slate
    lists: Array
    rewards: Array


class Attention(nn.Module):
    """Attention with a residual connection, in which each query can also attend to a learnt null vector.

    Args:
        width: width of all vectors.
        heads: number of heads, a divisor of the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_known = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.know, self.say = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.nothing = nn.Parameter(0.1 * torch.randn(width))

    def forward(self, queries: torch.Tensor, known: torch.Tensor, there: torch.Tensor | None = None) -> torch.Tensor:
        """Return queries (B, Q, D) after attention.

        Args:
            queries: (B, Q, D) queries.
            known: (B, N, D) vectors that the queries attend to.
            there: (B, N) mask, True for vectors that may be attended to; None for all.
        """
        known = torch.cat([self.nothing.expand(len(known), 1, -1), known], dim=1)
        mask = None
        if there is not None:
            mask = torch.cat([there.new_ones(len(there), 1), there], dim=1)[:, None, None, :]
        keys, values = self.know(self.norm_known(known)).chunk(2, dim=-1)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.ask(self.norm(queries)), keys, values)
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return queries + self.say(found.transpose(1, 2).flatten(2))


class JointNetwork(nn.Module):
    """Network that encodes the items once for all lists, then encodes each list from its items, and then lets the lists
    attend to one another.

    Args:
        inputs: width F of the item vectors.
        settings: settings of the evaluator.
    """

    def __init__(self, inputs: int, settings: JointEvaluatorSettings) -> None:
        super().__init__()
        width, heads = settings.width, settings.heads
        self.item, self.past = nn.Linear(inputs + 1, width), nn.Linear(inputs, width)
        self.among, self.history, self.inside = (Attention(width, heads) for _ in range(3))
        self.position = nn.Parameter(0.1 * torch.randn(settings.length, width))
        self.whole = nn.Parameter(0.1 * torch.randn(width))
        self.across = Attention(width, heads) if settings.across else None
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.worth = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(
        self, items: torch.Tensor, there: torch.Tensor, past: torch.Tensor, known: torch.Tensor, lists: torch.Tensor
    ) -> torch.Tensor:
        """Return the scores (B, K) of lists of positions (B, K, L).

        Args:
            items: (B, M, F + 1) vector and score of each candidate.
            there: (B, M) mask of the candidates.
            past: (B, H, F) vectors of the history.
            known: (B, H) mask of the history.
            lists: (B, K, L) positions among the M candidates.
        """
        b, k, length = lists.shape
        encoded = self.item(items)
        encoded = self.among(encoded, encoded, there)
        encoded = self.history(encoded, self.past(past), known)
        rows = torch.arange(b)[:, None, None]
        ordered = (encoded[rows, lists] + self.position[:length]).flatten(0, 1)
        ordered = torch.cat([self.whole.expand(b * k, 1, -1), ordered], dim=1)
        ordered = self.inside(ordered, ordered)
        ordered = ordered + self.mix(ordered)
        judged = ordered.mean(dim=1).unflatten(0, (b, k)) + ordered[:, 0].unflatten(0, (b, k))
        if self.across is not None:
            judged = self.across(judged, judged)
        return self.worth(judged).squeeze(-1)


class JointEvaluator(LearntComponent):
    """Evaluator whose score of a list depends neither on the order of the lists nor on the order of the candidates.

    Equal lists have equal scores. The evaluator reads the item vectors, the scores in the slate, the user's history and
    the positions of the items in a list. It does not read which generator proposed a list.

    Args:
        settings: settings of the evaluator.
        vectors: (N, d) vectors of all items.
    """

    Settings: ClassVar[type[Base]] = JointEvaluatorSettings
    settings: JointEvaluatorSettings

    def __init__(self, settings: JointEvaluatorSettings | None = None, vectors: Array | None = None) -> None:
        super().__init__(settings)
        self.vectors = np.zeros((0, 1)) if vectors is None else np.asarray(vectors, np.float64)

    def fit(self, judged: JudgedLists, *, seed: int = 0) -> Self:
        """Fit the evaluator. The same seed gives the same weights.

        Raises:
            InputError: there are fewer than two lists per request, or a list is longer than ``settings.length``.
        """
        s, count = self.settings, judged.lists.shape[1]
        if count < 2:
            raise InputError(
                "A single list per request does not show which lists are better.",
                where="lists",
                expected="at least 2 per request, with rewards from a simulator or a counterfactual estimate",
                found=str(count),
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = JointNetwork(self.vectors.shape[1], s).double()
        rewards = judged.rewards - judged.rewards.mean(axis=1, keepdims=True)
        target = torch.as_tensor(rewards / max(float(rewards.std()), 1e-12))
        optimiser = torch.optim.Adam(self.network.parameters(), lr=s.rate)
        random = np.random.default_rng(seed)
        for _ in range(s.epochs):
            for rows in np.array_split(random.permutation(len(target)), max(1, len(target) // s.batch)):
                scores = self._forward(judged.requests.take(rows), _rows(judged.slate, rows), judged.lists[rows])
                wanted = target[torch.as_tensor(rows)]
                law = torch.softmax(wanted / s.temperature, dim=1)
                loss = -(law * torch.log_softmax(scores, dim=1)).sum(dim=1).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return self

    def score(self, requests: Requests, slate: Slate, lists: Array) -> Array:
        """Return the scores (B, K) of lists, which are given as positions in the slate (B, K, L).

        Raises:
            InputError: a list is longer than ``settings.length``.
        """
        with torch.inference_mode():
            return np.asarray(self._forward(requests, slate, lists).numpy())

    def weights(self) -> dict[str, Array]:
        """Return the weights of the network and the item vectors."""
        return {"vectors": self.vectors, **{f"network.{n}": v.numpy() for n, v in self.network.state_dict().items()}}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the evaluator from :meth:`weights`."""
        self.vectors = weights["vectors"]
        self.network = JointNetwork(self.vectors.shape[1], self.settings).double()
        own = {n.removeprefix("network."): torch.as_tensor(v) for n, v in weights.items() if n.startswith("network.")}
        self.network.load_state_dict(own)

    def _forward(self, requests: Requests, slate: Slate, lists: Array) -> torch.Tensor:
        if lists.shape[2] > self.settings.length:
            raise InputError(
                "A list is longer than the evaluator allows.",
                where="lists",
                expected=f"at most {self.settings.length} positions",
                found=str(lists.shape[2]),
                fix="fit an evaluator with a greater length",
            )
        assert slate.scores is not None
        own = self.vectors[np.where(slate.mask, slate.items, 0)]
        scores = np.where(slate.mask, slate.scores, 0.0)[..., None]
        past = np.asarray(requests.columns.get(HISTORY, np.full((len(requests), 0), NO_ITEM)))
        before = self.vectors[np.maximum(past, 0)]
        tensors = (np.concatenate([own, scores], axis=2), slate.mask, before, past != NO_ITEM, np.asarray(lists))
        return self.network(*(torch.as_tensor(values) for values in tensors))


class BestOfLists:
    """Re-ranker that generates several lists and returns the list with the highest evaluator score.

    If a request has fewer candidates than the list has positions, the candidates are ordered by their own scores.

    Args:
        generator: generator that proposes lists.
        evaluator: evaluator that scores the lists.
        lists: number of lists per request.
    """

    def __init__(self, generator: ListGenerator, evaluator: ListEvaluator, lists: int = 32) -> None:
        self.generator, self.evaluator, self.lists = generator, evaluator, lists

    def rerank(self, requests: Requests, slate: Slate, length: int) -> Slate:
        """Return the re-ranked list of each request, at most ``length`` items of its slate."""
        assert slate.scores is not None
        width = min(length, slate.items.shape[1])
        places = np.argsort(np.where(slate.mask, -slate.scores, np.inf), axis=1, kind="stable")[:, :width]
        enough = np.flatnonzero(slate.mask.sum(axis=1) >= length)
        if len(enough) and width:
            asked, part = requests.take(enough), _rows(slate, enough)
            lists = self.generator.propose(asked, part, self.lists, width)
            best = self.evaluator.score(asked, part, lists).argmax(axis=1)
            places[enough] = lists[np.arange(len(enough)), best]
        return slate.take(places)


def saved_best_of_lists(
    vectors: Array, strength: float = 0.7, *, folder: str, version: str, lists: int = 32
) -> BestOfLists:
    """Return a re-ranker with a saved evaluator.

    The evaluator chooses among permutations of the first positions, perturbed MMR lists and beam-search lists.

    Args:
        vectors: (N, d) vectors of all items, the same as in the evaluator's training.
        strength: weight λ of the scores in MMR and in the beam, in [0, 1].
        folder: folder that :meth:`JointEvaluator.save` wrote.
        version: expected version of the evaluator.
        lists: number of lists per request.

    Raises:
        ArtifactError: the evaluator in the folder has a different version or different item vectors.
    """
    evaluator = JointEvaluator.load(folder)
    if evaluator.version != version or not np.array_equal(evaluator.vectors, vectors):
        raise ArtifactError(
            "The saved evaluator of lists has a different version or was fitted with different vectors.",
            where=folder,
            expected=f"version {version}, vectors of shape {np.shape(vectors)}",
            found=f"version {evaluator.version}, vectors of shape {evaluator.vectors.shape}",
            fix="set the version to that of the evaluator in the folder, or fit the evaluator with the vectors of this dataset",
        )
    generators = (HeadPermutations(), SampledLists(vectors, "mmr", strength), BeamLists(vectors, strength))
    return BestOfLists(MixedLists(generators), evaluator, lists)


def _rows(slate: Slate, rows: Array) -> Slate:
    assert slate.scores is not None
    return Slate(slate.items[rows], slate.scores[rows])


def multiply_adds(lists: int, *, candidates: int, length: int, history: int, width: int, joint: bool) -> int:
    """Return the number of multiply-adds for the evaluation of all lists of one request.

    An attention of n queries over m keys of width w counts as 4 n w² + 2 n m w. Keys and values of the history are not
    counted. The attention across lists is quadratic in the number of lists; with many lists, it outweighs the saving
    from encoding the items only once.

    Args:
        lists: number of lists.
        candidates: number of candidates.
        length: length of a list.
        history: length of the history.
        width: width w of the vectors.
        joint: True if items are encoded once for all lists, False if they are encoded again for every list.
    """

    def attention(queries: int, keys: int) -> int:
        return 4 * queries * width**2 + 2 * queries * keys * width

    def encoding(items: int) -> int:
        return attention(items, items) + attention(items, history)

    inside = lists * attention(length + 1, length + 1)
    if joint:
        return encoding(candidates) + inside + attention(lists, lists)
    return lists * encoding(length) + inside
