"""Alignment of a generative decoder with rankers: GRPO over item codes with several rewards, plus the next-item loss,
as in OneLive and OneMall.

A reference copy of the decoder, synchronised periodically, decodes a group of items per request along the trie of
permitted items. A ranker scores the items, each reward's advantage is computed within the group, a rule sets the
weights of the rewards, and the clipped objective updates the decoder. The ranker may have errors that the decoder
learns to exploit, so evaluate with a different ranker (:func:`mean_reward`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.alignment.advantages import linear
from taiji.alignment.settings import Weighting
from taiji.core.component import NO_ITEM, Requests, Scorer, Slate, State
from taiji.core.errors import InputError
from taiji.core.settings import Settings
from taiji.models.retrieval.code_batches import CodeBatch
from taiji.models.retrieval.code_decoder import CodeDecoder
from taiji.models.retrieval.code_network import CodeNetwork
from taiji.models.retrieval.code_training import CodeTraining
from taiji.nn.weighting_rules import Observation, Rule, RuleOptions, make_rule

Array = NDArray[Any]
Reward = Callable[[Requests, Array], Array]
"""Function from requests (B,) and items (B, G) of the dataset, padded with −1, to rewards (B, G, K). Higher is better;
NaN where a reward does not apply."""


class CodeAlignmentSettings(Settings):
    """Settings of :func:`align_decoder`."""

    weighting: Weighting = "popo"
    """Rule that sets the weights of the rewards."""
    steps: PositiveInt = 100
    """Number of optimiser steps."""
    batch: PositiveInt = 32
    """Number of requests per step."""
    group: int = Field(default=16, ge=2)
    """Number of items per request, which are the best items of the reference decoder's beam search."""
    clip: float = Field(default=0.2, gt=0)
    """Clipping range of the ratio between a code's probability under the decoder and that under the reference."""
    beta: float = Field(default=0.02, ge=0)
    """Weight of the KL divergence from the reference."""
    next_weight: float = Field(default=1.0, ge=0)
    """Weight of the next-item loss, computed on one batch of histories per batch of requests."""
    reward_weight: float = Field(default=0.5, ge=0)
    """Weight of the alignment loss."""
    sync_every: PositiveInt = 20
    """Number of steps after which the reference is replaced by the current decoder."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Learning rate of AdamW."""


def ranker_reward(ranker: Scorer[State], tasks: tuple[str, ...]) -> Reward:
    """Return the reward whose K columns are a ranker's predictions for the given tasks."""

    def reward(requests: Requests, items: Array) -> Array:
        predictions = ranker.score(ranker.encode(requests), Slate(items))
        return np.where((items == NO_ITEM)[..., None], np.nan, np.stack([predictions[task] for task in tasks], axis=2))

    return reward


def align_decoder(
    decoder: CodeDecoder,
    requests: Requests,
    reward: Reward,
    settings: CodeAlignmentSettings | None = None,
    *,
    seed: int = 0,
) -> CodeDecoder:
    """Return a decoder that is aligned with the rewards. The given decoder is not changed.

    Args:
        decoder: fitted decoder; the next-item loss uses the events of its dataset before the latest request.
        requests: requests that are sampled with replacement.
        reward: see :data:`Reward`.
        seed: random seed of sampling and dropout.

    Returns:
        the aligned decoder. Its ``facts["alignment"]`` has one entry per step: mean ``rewards`` (K,), ``weights`` (K,),
        ``loss`` of the alignment, and ``next``, the next-item loss.

    Raises:
        InputError: there are no requests, or the rewards have the wrong shape.
    """
    s = settings or CodeAlignmentSettings()
    if not len(requests):
        raise InputError("There are no requests to align the decoder with.", where="requests", expected="at least one")
    made = copy(decoder)
    made.network, made.facts = deepcopy(decoder.network), dict(decoder.facts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made.facts["alignment"] = _Alignment(made, requests, reward, s, seed).run()
    made.network.eval()
    return made


def mean_reward(decoder: CodeDecoder, requests: Requests, reward: Reward, k: int) -> Array:
    """Return the mean of each reward (K,) over the first ``k`` items of each request's list. Use a ranker that was not
    used for alignment."""
    values = reward(requests, decoder.retrieve(requests, k).items)
    return np.asarray(np.nanmean(values, axis=(0, 1)))


def group_loss(
    log_chance: torch.Tensor, reference: torch.Tensor, advantages: torch.Tensor, clip: float, beta: float
) -> torch.Tensor:
    """Return the loss of GRPO: ``beta`` times the divergence minus the clipped objective, averaged over codes.

    Args:
        log_chance, reference: (N, L) log-probabilities of the codes under the decoder and under the reference.
        advantages: (N,).
        clip: clipping range of the ratio.
        beta: weight of ``exp(r − p) − (r − p) − 1``, where p and r are the log-probabilities under the decoder and
            under the reference. It estimates the KL divergence between the two, and would be unbiased for codes sampled
            from the decoder.
    """
    ratio = torch.exp(log_chance - reference)
    gain = advantages[:, None]
    kept = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    difference = reference - log_chance
    return (beta * (torch.exp(difference) - difference - 1) - kept).mean()


def code_log_chances(network: CodeNetwork, decoder: CodeDecoder, requests: Requests, items: Array) -> torch.Tensor:
    """Return the log-probability (B, G, L) of each code of the items (B, G), which are rows of ``decoder.item_codes``.
    Each history is encoded only once."""
    past, seen, asked = decoder.past(requests)
    codes = torch.from_numpy(decoder.item_codes[np.maximum(items, 0)]).to(seen.device)
    groups = seen[:, None].expand(codes.shape[:2])
    states, _ = network.states(network.read(past), groups, codes, asked.spread(codes.shape[1]))
    chances = [
        torch.log_softmax(network.logits(level, states[:, :, level]), dim=-1).gather(2, codes[..., level, None])
        for level in range(codes.shape[2])
    ]
    return torch.cat(chances, dim=2)


class _Alignment:
    def __init__(
        self, decoder: CodeDecoder, requests: Requests, reward: Reward, settings: CodeAlignmentSettings, seed: int
    ) -> None:
        self.decoder, self.requests, self.reward, self.settings = decoder, requests, reward, settings
        self.random = np.random.default_rng(seed)
        self.network = decoder.network
        self.reference = copy(decoder)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=settings.learning_rate, weight_decay=0.0)
        self.rule: Rule | None = None
        past = decoder.dataset.events.filter(pl.col("time") < int(requests.time.max()))
        self.training = CodeTraining(decoder, past, seed) if settings.next_weight else None
        self.batches: Iterator[CodeBatch] = iter(())

    def run(self) -> list[dict[str, Any]]:
        told = []
        for step in range(self.settings.steps):
            if step % self.settings.sync_every == 0:
                self.reference.network = deepcopy(self.network).eval()
            told.append(self.step())
        return told

    def step(self) -> dict[str, Any]:
        """Decode, score and weigh one batch, and take one optimiser step."""
        s = self.settings
        requests = self.requests.take(self.random.integers(len(self.requests), size=s.batch))
        items = self.reference.retrieve(requests, min(s.group, len(self.decoder.places))).items
        rewards = self.reward(requests, items)
        if rewards.shape[:2] != items.shape or rewards.ndim != 3:
            raise InputError(
                "The rewards do not match the items.",
                where="reward",
                expected=f"shape {(*items.shape, 'K')}",
                found=f"shape {rewards.shape}",
            )
        group, count = items.shape[1], rewards.shape[2]
        flat = np.where((items == NO_ITEM)[..., None], np.nan, rewards).reshape(-1, count)
        columns = linear(torch.from_numpy(flat.astype(np.float64)), group).to(self.network.table.dtype)
        own = self.decoder.assignments(items, requests.time[:, None])
        there = torch.from_numpy(own.ravel() >= 0)
        with torch.no_grad():
            reference = code_log_chances(self.reference.network, self.decoder, requests, own).flatten(0, 1)[there]
        self.network.eval()  # no dropout, so that the ratio is 1 where decoder and reference have equal parameters
        chances = code_log_chances(self.network, self.decoder, requests, own).flatten(0, 1)[there]
        columns = columns.to(chances.device)[there]
        weights = self._weights(flat, group, chances, reference, columns)
        aligned = group_loss(chances, reference, columns @ weights, s.clip, s.beta)
        total, following = s.reward_weight * aligned, torch.zeros(())
        if self.training is not None:
            self.network.train()
            loss, following = self.training.loss(self._histories())
            total = total + s.next_weight * loss
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        return {
            "rewards": np.nanmean(flat, axis=0).tolist(),
            "weights": weights.tolist(),
            "loss": float(aligned.detach()),
            "next": float(following.detach()),
        }

    def _weights(
        self, rewards: Array, group: int, chances: torch.Tensor, reference: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """Let the rule observe this step, and return the weights (K,) to apply in it."""
        if self.rule is None:
            self.rule = make_rule(self.settings.weighting, rewards.shape[1], RuleOptions(mode="robust"))
        before, gram = self.rule.weights, None
        if self.rule.source == "gradients":
            gram = self._gram(chances, reference, columns)
        square = 0.0 if gram is None else float(np.trace(gram) / len(gram))
        reading = self.rule.observe(Observation(rewards, group, gram, square_norm=square))
        held = reading.weights if self.rule.fresh else before
        return torch.as_tensor(held, dtype=chances.dtype, device=chances.device)

    def _gram(self, chances: torch.Tensor, reference: torch.Tensor, columns: torch.Tensor) -> Array:
        """Return the inner products (K, K) between the gradients of the per-reward losses."""
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        rows = []
        for column in columns.T:
            loss = group_loss(chances, reference, column, self.settings.clip, 0.0)
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            parts = [part.double().flatten() for part in found if part is not None]
            rows.append(torch.cat(parts))
        stacked = torch.stack(rows)
        return np.asarray((stacked @ stacked.T).cpu().numpy())

    def _histories(self) -> CodeBatch:
        """Return the next batch of histories, cycling through epochs."""
        assert self.training is not None
        batch = next(self.batches, None)
        if batch is None:
            self.batches = self.training.windows.epoch(self.decoder.settings.batch, self.random)
            batch = next(self.batches)
        return batch
