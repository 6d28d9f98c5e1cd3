"""Splitting of a ranker's network into a request step and a candidate step, with a cache of the split network."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from taiji.core.errors import InputError
from taiji.data.field_set import Categories, FieldSet
from taiji.models.ranking.graph_colours import Sides
from taiji.models.ranking.split_weights import SplitGraph, split_weights
from taiji.nn.field_embeddings import Batch

log = logging.getLogger(__name__)
REQUESTS, TIMES, DISTINCT, SEED = 3, 4, 9, 17
"""Numbers of requests, candidates per request and distinct items, and random seed, of the example for the splitting."""


def sides_of(fields: FieldSet) -> Sides:
    """Return the sides of the inputs of a network that reads the given fields.

    For the inputs, see :class:`taiji.models.ranking.ranking_network.Network`.
    """
    vectors = [name for vector in fields.vectors for name in (vector.name, f"{vector.name}_present")]
    sequences = [name for sequence in fields.sequences for name in (sequence.name, f"{sequence.name}_age")]
    owners = [number.side for number in fields.numbers for _ in number.labels]
    numbers = tuple(n for n, side in enumerate(owners) if side in ("user", "context"))
    sides = [category.side for category in fields.categories("context", "pair") for _ in range(category.columns)]
    columns = {"numbers": numbers, "categories": tuple(n for n, side in enumerate(sides) if side == "context")}
    return Sides(
        like="item",
        rows="user",
        tiled=frozenset(["user", *(codes.name for codes in fields.codes), *vectors]),
        shared=frozenset(["users", "user_categories", *sequences]),
        tables=frozenset(["items"]),
        columns=columns if sides else {"numbers": numbers},
    )


def example_batch(fields: FieldSet, device: str) -> Batch:
    """Return split inputs with valid random values for REQUESTS requests, each with TIMES candidates."""
    layout, sides = fields.layout, sides_of(fields)
    random = torch.Generator().manual_seed(SEED)
    rows = REQUESTS * TIMES

    def whole(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=random)

    def codes(categories: Categories, count: int) -> torch.Tensor:
        sizes = [size for size, columns in zip(categories.rows, categories.columns) for _ in range(columns)]
        return torch.stack([whole(size, count) for size in sizes], dim=1) if sizes else whole(1, count, 0)

    own = set(sides.columns["numbers"])
    items = torch.cat([whole(layout.items, DISTINCT, 1), codes(layout.item, DISTINCT)], dim=1)
    batch: Batch = {
        "users": whole(layout.users, REQUESTS),
        "user_categories": codes(layout.user, REQUESTS),
        "user": torch.arange(REQUESTS),
        "request_items": items,
        "items": items,
        "item": whole(DISTINCT, rows),
        "request_numbers": torch.randn(REQUESTS, len(own), generator=random),
        "numbers": torch.randn(rows, len(layout.numbers) - len(own), generator=random),
    }
    if "categories" in sides.columns:
        context = list(sides.columns["categories"])
        found = codes(layout.row, rows)
        pair = [column for column in range(found.shape[1]) if column not in context]
        batch |= {"request_categories": found[:REQUESTS, context], "categories": found[:, pair]}
    for name, (length, aged) in layout.sequences.items():
        batch[name] = whole(DISTINCT, REQUESTS, length)
        if aged:
            batch[f"{name}_age"] = torch.rand(REQUESTS, length, generator=random)
    for name, (slots, values) in layout.codes.items():
        batch[name] = whole(1 + slots * values, REQUESTS, slots)
    for name, width in layout.vectors.items():
        batch[name] = torch.randn(REQUESTS, width, generator=random)
        batch[f"{name}_present"] = whole(2, REQUESTS).float()
    return {name: values.to(device) for name, values in batch.items()}


def split_network(network: nn.Module, fields: FieldSet, device: str) -> SplitGraph:
    """Split the network of a ranker into a request step and a candidate step.

    Raises:
        InputError: the network cannot be traced.
        NotSeparable: the network cannot be split; a subclass of InputError.
    """
    network.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return split_weights(network, example_batch(fields, device), sides_of(fields))


def _weights(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield all parameters and buffers. Those of a module that occurs several times are repeated.

    This takes a tenth of the time of ``parameters()``, which would take longer than a forward pass of a small network.
    """
    for weights in (module._parameters, module._buffers):
        yield from (weight for weight in weights.values() if weight is not None)
    for part in module._modules.values():
        if part is not None:
            yield from _weights(part)


@dataclass
class SplitCache:
    """Cache of the split network of a ranker. The network is split at the first use and after its weights change."""

    network: nn.Module
    fields: FieldSet
    device: str
    found: SplitGraph | None = None
    why_not: str = ""
    """Reason why the network is not split; empty if it is split."""
    _key: Sequence[Any] = field(default=())

    def get(self) -> SplitGraph | None:
        """Return the split network. If the network cannot be split, log a warning and return None."""
        key = [(id(w), w.data_ptr(), w._version) for w in _weights(self.network)]
        if key != self._key:
            try:
                self.found, self.why_not = split_network(self.network, self.fields, self.device), ""
            except InputError as error:
                self.found, self.why_not = None, str(error)
                log.warning("The request side is computed again for every candidate: %s", error)
            self._key = key
        return self.found
