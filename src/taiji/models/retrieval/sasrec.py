"""SASRec: a causal transformer over the user's history that predicts the next item (Kang & McAuley, ICDM 2018).

Deviation: a sampled softmax replaces the paper's binary loss with one negative. With this loss, SASRec is as accurate
as later models (Klenitskiy & Vasilev, RecSys 2023; Petrov & Macdonald, RecSys 2023). Several histories are packed into
one row, so that the cost depends on the actual lengths of the histories.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from taiji.core.component import Device, Requests, pick_device
from taiji.core.progress import progress
from taiji.data.dataset import Dataset
from taiji.data.history import History, rows_and_places
from taiji.models.retrieval.mean_loss import mean_loss
from taiji.models.retrieval.settings import RetrieverSettings
from taiji.models.retrieval.vector_retriever import VectorRetriever, in_blocks, to_numpy
from taiji.nn.devices import on_device
from taiji.nn.early_stopping import BestWeights
from taiji.nn.lookup import look_up
from taiji.nn.packing import Packing, pack
from taiji.nn.sampled_softmax import sampled_softmax_loss
from taiji.nn.sequence_transformer import SequenceTransformer

Array = NDArray[Any]
log = logging.getLogger(__name__)


class SASRecSettings(RetrieverSettings):
    """Settings of :class:`SASRec`."""

    width: PositiveInt = 64
    """Width of item vectors and states."""
    layers: PositiveInt = 2
    """Number of transformer blocks."""
    heads: PositiveInt = 2
    """Number of attention heads."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout rate of the embeddings and of both branches of each block."""
    negatives: NonNegativeInt = 1024
    """Number of negatives sampled per step; 0 computes the softmax over the whole catalogue instead."""
    popularity_power: float = Field(default=0.5, ge=0, le=1)
    """Items are sampled as negatives in proportion to their count to this power. The loss is corrected for the sampling
    probability."""
    batch: PositiveInt = 128
    """Number of histories per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    epochs: PositiveInt = 200
    """Largest number of passes over the histories."""
    valid_users: PositiveInt = 5000
    """Largest number of randomly chosen users whose last interaction is held out and predicted at every check."""
    check_every: PositiveInt = 2
    """Number of passes between two checks."""
    patience: PositiveInt = 5
    """Number of consecutive checks without improvement of NDCG@10 after which training stops; the best weights are
    kept."""
    device: Device = "auto"
    """Device for training and encoding: `cpu`, `cuda`, or `auto`."""


class SASRecNetwork(nn.Module):
    """Network of item vectors and a transformer. Row 0 of the table of item vectors is padding."""

    def __init__(self, items: int, settings: SASRecSettings) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(items + 1, settings.width) * 0.02)
        self.encoder = SequenceTransformer(
            settings.width, settings.heads, settings.layers, settings.history, settings.dropout
        )

    def forward(self, items: torch.Tensor, place: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
        """Return states (R, L, d) for items (R, L), numbered from 1, with their positions (R, L) and the segments (R,
        L) that separate packed histories."""
        scale = self.table.shape[1] ** 0.5
        return self.encoder(look_up(self.table, items) * scale, place, segment)  # type: ignore[no-any-return]


class SASRec(VectorRetriever):
    """Sequential retriever, whose query is the state after the user's last interaction.

    Attributes:
        facts: ``checks`` has one entry per check: epoch, training loss and validation NDCG@10.
    """

    Settings = SASRecSettings
    settings: SASRecSettings

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Train with early stopping on the held-out last interactions."""
        self.facts["checks"] = []
        with torch.random.fork_rng(devices=[]):
            self._train(*self._prepared(history, seed, device))
        self.vectors = to_numpy(self.network.table[1:])

    def _prepared(
        self, history: History, seed: int, device: str | None
    ) -> tuple[Sequences, Array, _Valid, np.random.Generator]:
        """Create the network, and return training sequences, the sampling probability of each item, the validation
        data, and the random generator."""
        settings, random = self.settings, np.random.default_rng(seed)
        held_out = np.flatnonzero(np.diff(history.offsets) >= 2)
        if len(held_out) > settings.valid_users:
            held_out = np.sort(random.choice(held_out, settings.valid_users, replace=False))
        ends = history.offsets[1:].copy()
        ends[held_out] -= 1
        data = Sequences(np.asarray(history.items, np.int64), history.offsets[:-1], ends, settings.history)
        chance = np.bincount(history.items, minlength=len(self.places)).astype(np.float64)
        chance[chance > 0] **= settings.popularity_power
        torch.manual_seed(seed)
        self._build(device)
        return data, chance / chance.sum(), _Valid(history, held_out, settings.history), random

    def weights(self) -> dict[str, Array]:
        """Return the network's weights."""
        return {name: to_numpy(value) for name, value in self.network.state_dict().items()}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the network's weights."""
        self._build(device)
        self.network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        self.network.eval()
        self.vectors = to_numpy(self.network.table[1:])

    def queries(self, requests: Requests) -> Array:
        """Return the states (B, d) after the requests' histories. An empty history gives zeros, for which nothing is
        retrieved."""
        items, _ = self.recent(requests)
        return np.concatenate([self._encode(items[block]) for block in in_blocks(len(items))])

    def _build(self, device: str | None) -> None:
        self.device = pick_device(device or self.settings.device)
        self.network = SASRecNetwork(len(self.places), self.settings).to(self.device)

    def _encode(self, newest_first: Array) -> Array:
        """Return the last states (B, d) of histories (B, L), newest first, with −1 for padding and unknown items."""
        known = newest_first >= 0
        rows = np.flatnonzero(known.any(axis=1))
        out = np.zeros((len(known), self.settings.width), dtype=np.float32)
        if not len(rows):
            return out
        lengths = known[rows].sum(axis=1)
        packing = pack(lengths, int(lengths.max()))
        places, (row, place) = packing.places(lengths), rows_and_places(lengths)
        # The input is newest first, but a packed history is oldest first: entry j of a history of length n goes to
        # position n − 1 − j.
        reverse = lengths[row] - 1 - 2 * place
        batch = _batch(newest_first[known], place, places + reverse, lengths, packing)
        self.network.eval()
        with torch.no_grad():
            states = self.network(*(on_device(part, self.device) for part in batch))
        last = torch.from_numpy(places[np.cumsum(lengths) - 1])
        out[rows] = to_numpy(states.flatten(0, 1)[last.to(self.device)])
        return out

    def _train(self, data: Sequences, chance: Array, valid: _Valid, random: np.random.Generator) -> None:
        settings, network = self.settings, self.network
        optimiser = self._optimiser()
        best = BestWeights(network, settings.patience)
        with progress("SASRec", total=settings.epochs, unit="epochs") as update:
            for epoch in range(1, settings.epochs + 1):
                loss = self._epoch(optimiser, data, chance, random)
                update(epoch)
                if epoch % settings.check_every and epoch != settings.epochs:
                    continue
                quality = self._quality(valid)
                self.facts["checks"].append({"epoch": epoch, "loss": loss, "ndcg": quality})
                log.info("epoch %d: loss %.4f, validation NDCG@10 %.5f", epoch, loss, quality)
                if not math.isnan(quality) and best.stop(quality):
                    break
        best.restore()
        network.eval()

    def _optimiser(self) -> torch.optim.Optimizer:
        settings = self.settings
        return torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def _epoch(
        self, optimiser: torch.optim.Optimizer, data: Sequences, chance: Array, random: np.random.Generator
    ) -> float:
        """Train once on every history, and return the mean loss."""
        self.network.train()
        losses = [self._step(optimiser, batch, chance, random) for batch in data.epoch(self.settings.batch, random)]
        return mean_loss(losses)

    def _step(
        self, optimiser: torch.optim.Optimizer, batch: PackedBatch, chance: Array, random: np.random.Generator
    ) -> torch.Tensor:
        tensors = [on_device(part, self.device) for part in batch]
        states = self.network(*tensors[:3]).flatten(0, 1)[tensors[3]]
        table, targets = self.network.table[1:], tensors[4]
        if self.settings.negatives:
            drawn = random.choice(len(chance), self.settings.negatives, p=chance)
            log_chance = on_device(np.log(chance[drawn]).astype(np.float32), self.device)
            loss = sampled_softmax_loss(states, targets, table, on_device(drawn, self.device), log_chance)
        else:
            loss = nn.functional.cross_entropy(states @ table.T, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        optimiser.step()
        return loss.detach()

    def _quality(self, valid: _Valid) -> float:
        """Return NDCG@10 of the held-out interactions, each ranked among all items of the catalogue. Seen items are
        left out unless ``keeps_seen``. The result is NaN if nothing is held out."""
        if not len(valid.targets):
            return math.nan
        table, total = self.network.table[1:].detach(), 0.0
        for block in in_blocks(len(valid.targets)):
            query = on_device(self._encode(valid.items[block]), self.device)
            scores = query @ table.T
            targets = on_device(valid.targets[block], self.device)
            own = scores.gather(1, targets[:, None])
            if not self.keeps_seen:
                rows, items = valid.seen(block)
                scores[on_device(rows, self.device), on_device(items, self.device)] = -torch.inf
            rank = (scores > own).sum(dim=1).double()
            total += float(torch.where(rank < 10, 1 / torch.log2(rank + 2), torch.zeros_like(rank)).sum())
        return total / len(valid.targets)


def epochs_of(model: SASRec, dataset: Dataset, history: History, seed: int) -> Iterator[float]:
    """Train without checks, and yield the seconds of each epoch, for timing."""
    model._bind(dataset, dataset.items["item_id"])
    with torch.random.fork_rng(devices=[]):
        data, chance, _, random = model._prepared(history, seed, None)
        optimiser = model._optimiser()
        while True:
            start = time.perf_counter()
            model._epoch(optimiser, data, chance, random)
            yield time.perf_counter() - start


PackedBatch = tuple[Array, Array, Array, Array, Array]
"""Batch of packed histories: items, positions and segments, each (R, L); flat positions (M,) of the states that
predict; and the target items (M,) of these states, numbered from 0."""


class Sequences:
    """Training histories, cut to the latest interactions.

    Args:
        items: (n,) items of all users, user by user and oldest first.
        starts, ends: (U,) start and exclusive end of each user's slice of ``items``.
        length: largest number of items that the model reads.
    """

    def __init__(self, items: Array, starts: Array, ends: Array, length: int) -> None:
        self.items, self.length = items, length
        self.starts = np.maximum(starts, ends - length - 1)
        self.lengths = ends - self.starts - 1
        self.users = np.flatnonzero(self.lengths > 0)

    def epoch(self, batch: int, random: np.random.Generator) -> Iterator[PackedBatch]:
        """Yield all histories in random order, ``batch`` at a time, each history once."""
        order = random.permutation(self.users)
        for at in range(0, len(order), batch):
            yield self.batch(order[at : at + batch])

    def batch(self, users: Array) -> PackedBatch:
        """Return the packed histories of the given users. The target of each entry is the user's next item."""
        lengths = self.lengths[users]
        packing = pack(lengths, int(lengths.max()))
        row, step = rows_and_places(lengths)
        source = self.starts[users][row] + step
        flat = packing.places(lengths)
        place = lengths[row] - 1 - step
        packed = _batch(self.items[source], place, flat, lengths, packing)
        return (*packed, flat, self.items[source + 1])


def _batch(items: Array, place: Array, flat: Array, lengths: Array, packing: Packing) -> tuple[Array, Array, Array]:
    """Return items (numbered from 1), positions and segments, each (R, L). Entry j of the given arrays is written to
    position ``flat[j]`` of the flattened results."""
    out = tuple(np.zeros(packing.rows * packing.length, dtype=np.int64) for _ in range(3))
    out[0][flat], out[1][flat] = items + 1, place
    out[2][flat] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return tuple(part.reshape(packing.rows, packing.length) for part in out)  # type: ignore[return-value]


class _Valid:
    """Held-out last interactions, and the histories before them."""

    def __init__(self, history: History, users: Array, length: int) -> None:
        self.history, self.users = history, users
        last = history.offsets[users + 1] - 1
        self.targets = np.asarray(history.items[last], dtype=np.int64)
        wanted = last[:, None] - 1 - np.arange(length)
        inside = wanted >= history.offsets[users][:, None]
        self.items = np.where(inside, history.items[np.maximum(wanted, 0)], -1)

    def seen(self, block: slice) -> tuple[Array, Array]:
        """Return all interactions of the block's users before the held-out one: row in the block (S,) and item (S,)."""
        starts, ends = self.history.offsets[self.users[block]], self.history.offsets[self.users[block] + 1] - 1
        rows, place = rows_and_places(ends - starts)
        return rows, np.asarray(self.history.items[starts[rows] + place], dtype=np.int64)
