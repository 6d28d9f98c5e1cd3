"""Two towers: one network encodes a user's history, another the id and the categories of an item (Yi et al., RecSys
2019)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn

from taiji.core.component import Device, Requests, pick_device
from taiji.core.progress import progress
from taiji.data.history import History
from taiji.models.retrieval.mean_loss import mean_loss
from taiji.models.retrieval.settings import RetrieverSettings
from taiji.models.retrieval.vector_retriever import VectorRetriever, in_blocks, to_numpy
from taiji.nn.devices import on_device
from taiji.nn.lookup import look_up

Array = NDArray[Any]
log = logging.getLogger(__name__)


class TwoTowersSettings(RetrieverSettings):
    """Settings of :class:`TwoTowers`."""

    width: PositiveInt = 64
    """Width of the output vectors of both towers."""
    hidden: PositiveInt = 128
    """Width between the two layers of a tower."""
    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the softmax, by which cosines are divided."""
    category_levels: PositiveInt = 3
    """Number of category levels of an item that are embedded, coarsest first."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout between the layers of a tower."""
    batch: PositiveInt = 512
    """Number of interactions per step. The item of each interaction is a negative for all other interactions of the
    step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Learning rate of AdamW."""
    epochs: PositiveInt = 10
    """Number of passes over the interactions."""
    max_rows: PositiveInt = 2_000_000
    """Largest number of interactions used for training; the latest ones are used."""
    device: Device = "auto"
    """Device for training and encoding: `cpu`, `cuda`, or `auto`."""


class ItemTower(nn.Module):
    """Embeddings of items and categories, and the item tower on top of them. Item 0 and category 0 are padding."""

    def __init__(self, items: int, categories: list[int], settings: TwoTowersSettings) -> None:
        super().__init__()
        width = settings.width
        self.items = nn.Parameter(torch.randn(items + 1, width) * 0.05)
        self.categories = nn.ParameterList(nn.Parameter(torch.randn(size + 1, width) * 0.05) for size in categories)
        self.item_tower = tower(width, settings)

    def item(self, items: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (M, d) of items (M,), numbered from 1, with their categories (M, levels)."""
        x = self.inputs(items, categories)
        return nn.functional.normalize(x + self.item_tower(x), dim=-1)

    def inputs(self, items: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return the sums (…, d) of the id and category embeddings of items (…)."""
        total = look_up(self.items, items)
        for level, table in enumerate(self.categories):
            total = total + look_up(table, categories[..., level])
        return total


class TwoTowersNetwork(ItemTower):
    """Network of both towers."""

    def __init__(self, items: int, categories: list[int], settings: TwoTowersSettings) -> None:
        super().__init__(items, categories, settings)
        self.user_tower = tower(settings.width, settings)

    def user(self, items: torch.Tensor, categories: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (B, d) of histories (B, L), newest first, given the items' categories (B, L, levels) and
        weights (B, L)."""
        x = (self.inputs(items, categories) * weight.unsqueeze(-1)).sum(dim=1)
        return nn.functional.normalize(x + self.user_tower(x), dim=-1)


def tower(width: int, settings: TwoTowersSettings) -> nn.Sequential:
    """Return a two-layer network from the given input width to ``settings.width``."""
    return nn.Sequential(
        nn.Linear(width, settings.hidden),
        nn.GELU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, settings.width),
    )


class TwoTowers(VectorRetriever):
    """Two towers, trained with in-batch negatives. A log-Q correction accounts for the fact that popular items occur
    more often as negatives."""

    Settings = TwoTowersSettings
    settings: TwoTowersSettings
    network: ItemTower

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Train on the latest ``max_rows`` interactions, leaving out each user's first interaction."""
        settings, random = self.settings, np.random.default_rng(seed)
        rows = training_rows(history, settings.max_rows)
        popularity = np.bincount(history.items, minlength=len(self.places)) / len(history.items)
        log_chance = torch.from_numpy(np.log(np.maximum(popularity, 1e-12)).astype(np.float32))
        self.facts["losses"] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(device)
            optimiser = torch.optim.AdamW(self.network.parameters(), lr=settings.learning_rate, fused=True)
            self.network.train()
            with progress("Two towers", total=settings.epochs, unit="epochs") as update:
                for epoch in range(settings.epochs):
                    order = random.permutation(rows)
                    losses = [
                        self._step(optimiser, history, order[at : at + settings.batch], log_chance)
                        for at in range(0, len(order), settings.batch)
                        if len(order[at : at + settings.batch]) > 1
                    ]
                    self.facts["losses"].append(mean_loss(losses))
                    update(epoch + 1)
        self._finish()

    def weights(self) -> dict[str, Array]:
        """Return the network's weights and the items' categories."""
        state = {f"network.{name}": to_numpy(value) for name, value in self.network.state_dict().items()}
        return {**state, "categories": self.item_categories}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the network's weights."""
        self._build(device, weights["categories"])
        state = {name.removeprefix("network."): torch.from_numpy(v) for name, v in weights.items() if "." in name}
        self.network.load_state_dict(state)
        self._finish()

    def queries(self, requests: Requests) -> Array:
        """Return the vectors (B, d) of the user tower. An empty history gets a vector too."""
        items, _ = self.recent(requests)
        with torch.no_grad():
            parts = [to_numpy(self._user(items[block])) for block in in_blocks(len(items))]
        return np.concatenate(parts)

    def _build(self, device: str | None, categories: Array | None = None) -> None:
        self.device = pick_device(device or self.settings.device)
        self.item_categories = self._categories() if categories is None else categories
        sizes = [int(level.max(initial=0)) for level in self.item_categories.T]
        self.network = self._network(sizes).to(self.device)
        padded = np.concatenate([np.zeros((1, self.item_categories.shape[1]), np.int64), self.item_categories])
        self._padded = on_device(padded, self.device)

    def _network(self, categories: list[int]) -> ItemTower:
        """Return an untrained network for categories of the given sizes."""
        return TwoTowersNetwork(len(self.places), categories, self.settings)

    def _categories(self) -> Array:
        """Return category codes (N, levels), numbered from 1; a missing category is 0."""
        levels = self.dataset.levels[: self.settings.category_levels]
        columns = [self.dataset.items[level].rank("dense").fill_null(0).to_numpy().astype(np.int64) for level in levels]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.places), 0), np.int64)

    def _user(self, newest_first: Array) -> torch.Tensor:
        known = newest_first >= 0
        weight = np.where(known, 1.0 / np.sqrt(1.0 + np.arange(newest_first.shape[1])), 0.0)
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
        items = on_device(newest_first + 1, self.device)
        assert isinstance(self.network, TwoTowersNetwork)
        return self.network.user(items, self._padded[items], on_device(weight.astype(np.float32), self.device))

    def _step(
        self, optimiser: torch.optim.Optimizer, history: History, rows: Array, log_chance: torch.Tensor
    ) -> torch.Tensor:
        past, target = before_rows(history, rows, self.settings.history)
        loss = self._loss(past, on_device(target + 1, self.device), log_chance.to(self.device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach()

    def _loss(self, past: Array, items: torch.Tensor, log_chance: torch.Tensor) -> torch.Tensor:
        """Return the loss for histories (B, L), newest first, and target items (B,), numbered from 1."""
        return self._softmax(self._user(past), items, log_chance)

    def _softmax(self, user: torch.Tensor, items: torch.Tensor, log_chance: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the items (B,), numbered from 1, given user vectors (B, d). The other items of
        the batch are the negatives.

        The logits are corrected for the items' sampling probability.
        """
        item = self._targets(items)
        logits = user @ item.T / self.settings.temperature - log_chance[items - 1]
        same = (items[:, None] == items[None, :]) & ~torch.eye(len(items), dtype=torch.bool, device=items.device)
        return nn.functional.cross_entropy(
            logits.masked_fill(same, -torch.inf), torch.arange(len(items), device=items.device)
        )

    def _targets(self, items: torch.Tensor) -> torch.Tensor:
        """Return the item tower's training vectors (M, d) of items (M,), numbered from 1."""
        return self.network.item(items, self._padded[items])

    def _numbers(self) -> torch.Tensor:
        """Return the embedding index of each item (N,), from 1; 0 for an item without an id embedding."""
        return torch.arange(1, len(self.places) + 1, device=self.device)

    def _finish(self) -> None:
        self.network.eval()
        with torch.no_grad():
            self.vectors = to_numpy(self.network.item(self._numbers(), self._padded[1:]))


def training_rows(history: History, most: int) -> Array:
    """Return the positions, ascending, of the latest ``most`` interactions that are not the first of their user."""
    first = np.zeros(len(history.items), dtype=bool)
    first[history.offsets[:-1][np.diff(history.offsets) > 0]] = True
    rows = np.flatnonzero(~first)
    latest = np.argsort(-np.asarray(history.times)[rows], kind="stable")[:most]
    return np.sort(rows[latest])


def before_rows(history: History, rows: Array, length: int) -> tuple[Array, Array]:
    """Return the history before each position in ``rows`` (B,), and the item (B,) at this position.

    A history (B, length) has the user's last items with a strictly earlier time, newest first and padded with −1.
    """
    user = np.searchsorted(history.offsets, rows, side="right") - 1
    wanted = rows[:, None] - 1 - np.arange(length)
    earlier = (wanted >= history.offsets[user][:, None]) & (
        np.asarray(history.times)[np.maximum(wanted, 0)] < np.asarray(history.times)[rows][:, None]
    )
    items = np.asarray(history.items, dtype=np.int64)
    return np.where(earlier, items[np.maximum(wanted, 0)], -1), items[rows]
