"""Properties of requests and targets that limit retrieval, and slices of requests for separate evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import Requests
from taiji.data.dataset import Dataset
from taiji.metrics.list_metrics import Targets

Array = NDArray[Any]
HISTORIES = ((0, 0, "no history"), (1, 4, "1 to 4 past interactions"), (5, 19, "5 to 19 past interactions"), (20, None, "20 or more past interactions"))  # fmt: skip
"""Smallest and largest number of past interactions of a request, and the name of the slice."""


@dataclass(frozen=True)
class LogFacts:
    """Shares and counts of a log that limit the models trained on it.

    Attributes:
        interactions: number of interactions before the test period.
        items: number of items in the catalogue.
        per_item: ``interactions`` per item.
        no_history: share of requests whose user had no earlier interaction.
        unknown_targets: share of targets without an interaction before the test period.
        had_before: share of targets with which the user had interacted before the request.
        head: smallest number of items that make up at least half of the interactions before the test period.
        head_targets: share of targets that are among these ``head`` items.
    """

    interactions: int
    items: int
    per_item: float
    no_history: float
    unknown_targets: float
    had_before: float
    head: int
    head_targets: float

    def to_json(self) -> dict[str, Any]:
        """Return the facts as a JSON-compatible dictionary."""
        return asdict(self)


def past_counts(dataset: Dataset, before: int) -> Array:
    """Return the number of interactions (N,) of each item strictly before a time (microseconds)."""
    history = dataset.history
    past = np.asarray(history.times) < before
    return np.bincount(np.asarray(history.items)[past], minlength=dataset.n_items)


def head_of(counts: Array) -> Array:
    """Return a mask (N,) of the smallest set of items that makes up at least half of the counts (N,)."""
    order = np.argsort(-counts, kind="stable")
    inside = np.cumsum(counts[order]) - counts[order] < counts.sum() / 2
    found = np.zeros(len(counts), dtype=bool)
    found[order[inside]] = True
    return found


def facts_of(dataset: Dataset, requests: Requests, targets: Targets, before: int) -> LogFacts:
    """Return the facts; ``before`` is the start of the test period in microseconds."""
    counts = past_counts(dataset, before)
    known = dataset.history.count_before(requests.user, requests.time)
    head, items = head_of(counts), targets.items
    had = 0
    for row, (user, time) in enumerate(zip(requests.user, requests.time)):
        past, _ = dataset.history.before(int(user), int(time))
        had += int(np.isin(items[targets.offsets[row] : targets.offsets[row + 1]], past).sum())
    share = 1 / max(len(items), 1)
    return LogFacts(
        interactions=int(counts.sum()),
        items=dataset.n_items,
        per_item=float(counts.sum() / max(dataset.n_items, 1)),
        no_history=float((known == 0).mean()),
        unknown_targets=float((counts[items] == 0).sum() * share),
        had_before=had * share,
        head=int(head.sum()),
        head_targets=float(head[items].sum() * share),
    )


def slices_of(
    dataset: Dataset, requests: Requests, targets: Targets, before: int
) -> Iterator[tuple[str, Array, Targets]]:
    """Yield the name, request indices and targets of each slice.

    There are slices by length of history, and slices by popularity of the targets.
    """
    known = dataset.history.count_before(requests.user, requests.time)
    for fewest, most, name in HISTORIES:
        rows = np.flatnonzero((known >= fewest) & (known <= (np.inf if most is None else most)))
        if len(rows):
            yield name, rows, _chosen(targets, rows, np.ones(len(targets.items), dtype=bool))
    head = head_of(past_counts(dataset, before))[targets.items]
    for name, inside in (("targets among the most popular", head), ("targets outside the most popular", ~head)):
        owner = np.repeat(np.arange(len(targets)), targets.counts)
        rows = np.unique(owner[inside])
        if len(rows):
            yield name, rows, _chosen(targets, rows, inside)


def _chosen(targets: Targets, rows: Array, inside: Array) -> Targets:
    """Return those targets of the requests ``rows`` for which ``inside`` is True, with requests numbered from 0."""
    owner = np.repeat(np.arange(len(targets)), targets.counts)
    place = np.full(len(targets), -1)
    place[rows] = np.arange(len(rows))
    kept = inside & (place[owner] >= 0)
    return Targets.of(place[owner[kept]], targets.items[kept], len(rows))
