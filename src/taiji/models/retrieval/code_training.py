"""Training of the decoder over item codes, with early stopping on held-out last interactions."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from taiji.core.component import Requests
from taiji.core.progress import progress
from taiji.data.history import History, compressed
from taiji.models.codes.kmeans import k_means, nearest
from taiji.models.retrieval.code_batches import CodeBatch, Windows, held_out
from taiji.models.retrieval.code_losses import cluster_loss, skip_loss
from taiji.models.retrieval.code_network import Past, RequestAttributes
from taiji.models.retrieval.code_scenarios import column_of, numbers_of
from taiji.models.retrieval.mean_loss import mean_loss
from taiji.nn.devices import on_device
from taiji.nn.early_stopping import BestWeights
from taiji.nn.experts import Experts
from taiji.nn.sampled_softmax import sampled_softmax_loss
from taiji.nn.time_encoding import time_features

if TYPE_CHECKING:
    from taiji.models.retrieval.code_decoder import CodeDecoder

Array = NDArray[Any]
log = logging.getLogger(__name__)
VALID = 256
"""Number of held-out histories per batch when their loss is computed."""


class CodeTraining:
    """Training run of a decoder with a new network.

    Args:
        model: decoder that already has its codes and an untrained network.
        rows: events of the model's dataset; the model learns from clicks and, with ``skip_weight``, from exposures
            without a click.
        seed: random seed of the order of histories, the sampled negatives, the choice of validation users and, if they
            are used, the clusters.
    """

    def __init__(self, model: CodeDecoder, rows: pl.DataFrame, seed: int) -> None:
        s = model.settings
        assigned = pl.Series(model.assignments(rows["item"].to_numpy(), rows["time"].to_numpy()))
        clicks = rows.filter((pl.col("click") == 1) & (assigned >= 0))
        order, _ = compressed(clicks["user"].to_numpy(), model.dataset.n_users)
        known = History.from_events(clicks, model.dataset.n_users)
        history = History(known.offsets, model.assignments(known.items, known.times), known.times)
        self.model, self.network, self.history = model, model.network, history
        self.prompts: Array | None = None
        if s.scenario:
            values = column_of(clicks, s.scenario, "events").to_numpy().astype(str)[order]
            self.values, self.prompts = values, numbers_of(values, model.facts["scenarios"])
        if s.skip_weight:
            shown = rows.with_columns((pl.col("click") == 0).cast(pl.Int8).alias("click"))
            self.skipped = History.from_events(shown, model.dataset.n_users)
        self.random = np.random.default_rng(seed)
        self.valid = held_out(history, s.valid_users, self.random)
        ends = history.offsets[1:].copy()
        ends[self.valid] -= 1
        self.windows, self.whole = Windows(history, ends, s.history), Windows(history, history.offsets[1:], s.history)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True
        )
        counts = np.bincount(history.items, minlength=len(model.item_codes)) + 1e-6
        self.chances = [np.bincount(codes, weights=counts) ** 0.5 for codes in model.item_codes.T]
        self.clusters = self._clusters(seed) if s.clusters else []

    def run(self) -> list[dict[str, float]]:
        """Train, and return the epoch, losses and validation NDCG@10 of each check. The network keeps the best
        weights."""
        s, network = self.model.settings, self.network
        checks: list[dict[str, float]] = []
        best = BestWeights(network, s.patience)
        with progress("code decoder", total=s.epochs, unit="epochs") as update:
            for epoch in range(1, s.epochs + 1):
                network.train()
                losses = [self.step(batch) for batch in self.windows.epoch(s.batch, self.random)]
                update(epoch)
                if epoch % s.check_every and epoch != s.epochs:
                    continue
                mean = mean_loss(losses)
                check = {"epoch": epoch, "loss": mean, "valid_loss": self.held_out_loss(), "ndcg": self.quality()}
                checks.append(check)
                log.info("epoch %d: loss %.4f, validation %.4f, NDCG@10 %.5f", *check.values())
                if len(self.valid) and best.stop(check["ndcg"], check["valid_loss"]):
                    break
        best.restore()
        network.eval()
        return checks

    def step(self, batch: CodeBatch) -> torch.Tensor:
        """Take one training step, and return the cross-entropy of the next codes. The value stays on the device, so
        that the host does not wait for it."""
        loss, reported = self.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        for module in self.network.modules():
            if isinstance(module, Experts):
                module.balance()
        return reported.detach()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Return the cross-entropy per held-out interaction, summed over the levels of its codes; NaN if there are
        none."""
        if not len(self.valid):
            return float("nan")
        self.network.eval()
        total = 0.0
        for users in np.split(self.valid, range(VALID, len(self.valid), VALID)):
            total += float(self.loss(self.whole.batch(users), newest=True)[1]) * len(users)
        return total / len(self.valid)

    def loss(self, batch: CodeBatch, newest: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss to minimise, and the part of this loss that is the cross-entropy of the next codes, summed
        over levels.

        Args:
            batch: windows of histories.
            newest: True to use only the last target of each window, False to use all.
        """
        model, network, s = self.model, self.network, self.model.settings
        targeted = batch.items >= 0
        if newest:
            targeted = np.arange(batch.items.shape[1]) == targeted.sum(axis=1)[:, None] - 1
        there = on_device(np.flatnonzero(targeted.ravel()), model.device)
        targets = model._tensor(model.item_codes[np.maximum(batch.items, 0)])
        past, asked = self._past(batch)
        seen = torch.arange(batch.items.shape[1], device=model.device).expand(batch.items.shape)
        states, thoughts = network.states(network.read(past), seen, targets, asked)
        states, codes = states.flatten(0, 1)[there], targets.flatten(0, 1)[there]
        parts = [self._next_code(level, states[:, level], codes[:, level]) for level in range(codes.shape[1])]
        total = reported = torch.stack(parts).sum()
        if self.clusters:
            assert thoughts is not None
            for level, cluster in enumerate(self.clusters):
                thought = thoughts.flatten(0, 1)[there][:, level]
                aligned = cluster_loss(thought, network.level_table(level), cluster, codes[:, level])
                total = total + s.cluster_weight * aligned
        if s.skip_weight:
            skipped = self._skipped(batch)[targeted]
            penalty = skip_loss(network.logits(0, states[:, 0]), model._tensor(skipped), codes[:, 0])
            total = total + s.skip_weight * penalty
        return total, reported

    def quality(self) -> float:
        """Return NDCG@10 of the lists that the decoder retrieves for the held-out interactions; NaN if there are
        none."""
        if not len(self.valid):
            return math.nan
        last = self.history.offsets[self.valid + 1] - 1
        columns = {}
        if self.prompts is not None:
            columns[self.model.settings.scenario] = self.values[last]
        requests = Requests(self.valid, self.history.times[last], columns)
        found = self.model.retrieve(requests, min(10, self.model.settings.beam)).items
        targets = self.model.places[self.model.code_log.items[self.history.items[last]]]
        rank = np.nonzero(found == targets[:, None])[1]
        return float((1 / np.log2(rank + 2)).sum() / len(self.valid))

    def _next_code(self, level: int, states: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        network, count = self.network, self.model.settings.negatives
        if not count or count >= network.sizes[level] or not network.training:
            return functional.cross_entropy(network.logits(level, states), codes)
        chance = self.chances[level] / self.chances[level].sum()
        drawn = self.random.choice(len(chance), count, p=chance)
        log_chance = self.model._tensor(np.log(chance[drawn]).astype(np.float32))
        return sampled_softmax_loss(states, codes, network.level_table(level), self.model._tensor(drawn), log_chance)

    def _past(self, batch: CodeBatch) -> tuple[Past, RequestAttributes]:
        """Return the network's input for a batch, and the attributes of its targets."""
        s, times, prompt = self.model.settings, None, None
        if s.time:
            then = np.where(batch.places >= 0, self.history.times[batch.places], 0)
            features = time_features(then, np.concatenate([then[:, :1], then[:, :-1]], axis=1))
            times = self.model._tensor(features)
        long = np.zeros((len(batch.items), 0), np.int64)
        if s.long_history:
            before = batch.places[:, :1] - 1 - np.arange(s.long_history)
            inside = before >= self.history.offsets[batch.users][:, None]
            long = np.where(inside, self.history.items[np.maximum(before, 0)], -1)
        if self.prompts is not None:
            prompt = self.model._tensor(np.where(batch.places >= 0, self.prompts[batch.places], 0))
        past = self.model.past_of(batch.items[:, :-1], None if times is None else times[:, :-1], long)
        return past, RequestAttributes(times, prompt)

    def _skipped(self, batch: CodeBatch) -> Array:
        """Return the first codes (R, n + 1, S) of the last skipped exposures before each target; −1 for none.

        An exposure counts only if it was shown at the time of the user's previous interaction (in the same list) or
        later. Interactions at the same time, such as the items of a basket, have the same skipped exposures.
        """
        model, history = self.model, self.history
        users = np.broadcast_to(batch.users[:, None], batch.items.shape)
        times = history.times[batch.places]
        found, shown = self.skipped.before_batch(users.ravel(), times.ravel(), model.settings.skips)
        earlier, when = history.before_batch(users.ravel(), times.ravel(), 1)
        previous = np.where(earlier >= 0, when, np.iinfo(np.int64).min)
        own = model.assignments(found, shown)
        kept = (own >= 0) & (shown >= previous)
        return np.where(kept, model.item_codes[np.maximum(own, 0), 0], -1).reshape(*batch.items.shape, -1)

    def _clusters(self, seed: int) -> list[torch.Tensor]:
        """Return the cluster of each code (V,) for every level, by k-means on the mean vector of each code's items.
        Clusters are numbered without gaps."""
        model, out = self.model, []
        vectors = model.vectors_of_assignments(self.history, seed)
        for level, size in enumerate(self.network.sizes):
            codes = model.item_codes[:, level]
            means = np.zeros((size, vectors.shape[1]))
            np.add.at(means, codes, vectors)
            means /= np.maximum(np.bincount(codes, minlength=size), 1)[:, None]
            centres = k_means(means, min(model.settings.clusters, size), 25, seed)
            found = np.unique(nearest(means, centres), return_inverse=True)[1]
            out.append(model._tensor(found.ravel().astype(np.int64)))
        return out
