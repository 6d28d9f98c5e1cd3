"""Pair fields for the agreement of a candidate with the user's history: one from the log, and one from item texts.

Both fields read the user's history strictly before the time of a row. Their item vectors are learnt at several cutoff
times, from the events strictly before each cutoff. A row uses the latest cutoff that is not after its own time. The
values of a row do not depend on the other rows of the call, so training and serving give the same bytes.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.fields import NumbersField, Rows
from taiji.data.item_text import has_texts, item_texts
from taiji.data.vocabulary import stable_hash
from taiji.language.item_vectors import chosen_embedder, embedded
from taiji.models.ranking.past_states import WIDTH, PastState, cut_times, past_state
from taiji.models.ranking.text_space import TextSpace, to_collaborative
from taiji.nn.quantised_vectors import QuantisedVectors
from taiji.nn.set_match import HISTORY_MATCHES, history_match

Array = NDArray[Any]
BLOCK = 2_000_000
"""Largest number of cosines, or of co-occurrence weights, held in memory at once."""
CO_DECAY = 0.8
"""Factor by which the weight of a co-occurrence decreases per step back in the history."""


class PastField(NumbersField):
    """Base class of pair fields whose item vectors are refreshed at cutoff times.

    Args:
        name: name of the field, and prefix of the names of its values.
        history: number of the user's most recent interactions with which a candidate is compared.
        refreshes: number of times that the item vectors are learnt again after the start of the training period. The
            last refresh is at the end of the period.
        least_rows: smallest number of training rows. With fewer rows, the field has no values.
    """

    def __init__(self, name: str, history: int, refreshes: int, least_rows: int) -> None:
        super().__init__(name, "pair")
        if history < 1 or refreshes < 1:
            raise ConfigError(
                "The history or the number of refreshes of a pair field is below 1.",
                where=f"field {name}",
                expected="history ≥ 1 and refreshes ≥ 1",
                found=f"history {history}, refreshes {refreshes}",
            )
        self.history, self.refreshes, self.least_rows = history, refreshes, least_rows
        self.cuts: Array = np.zeros(0, dtype=np.int64)
        self.known: Array = np.zeros(0, dtype=np.int64)
        self._bound: tuple[pl.DataFrame, Array] | None = None
        self._changing = threading.RLock()
        """Lock held while the item arrays change.

        Readers need no lock: items are only appended, and their indices are published after the arrays.
        """

    @property
    def is_left_out(self) -> bool:
        """True if the field was fitted to too few rows to be used."""
        return self.least_rows > 0 and not len(self.cuts)

    @property
    def learns(self) -> bool:
        """True if the item vectors can be learnt for this catalogue."""
        return True

    @abstractmethod
    def learn(self, dataset: Dataset, until: int) -> None:
        """Learn the item vectors for a new last cutoff, from the interactions before ``until`` (microseconds)."""

    @abstractmethod
    def agreement(self, cut: int, items: Array, histories: Array) -> Array:
        """Return the values for the candidates of requests, (F, R * M) float32.

        Args:
            cut: index of the cutoff time.
            items, histories: (R, M) candidates and (R, L) histories, as the field's own item indices; −1 is padding.
        """

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn the item vectors from the log before each cutoff time."""
        if (self.training_rows or len(rows)) < self.least_rows:
            self.cuts = np.zeros(0, dtype=np.int64)
            return
        self._start(dataset)
        first = int(rows["time"].min()) if len(rows) else until  # type: ignore[arg-type]
        for cut in cut_times(dataset.history, first, self.refreshes, until) if self.learns else ():
            self.refresh(dataset, int(cut))

    def refresh(self, dataset: Dataset, until: int) -> None:
        """Add a last cutoff time (microseconds), and learn the item vectors from the log before it.

        Rows from this time on use the new vectors.

        Raises:
            ConfigError: the time is not after the last cutoff.
        """
        with self._changing:
            if len(self.cuts) and until <= self.cuts[-1]:
                raise ConfigError(
                    "A field can only be refreshed at a later time than before.",
                    where=f"field {self.name}",
                    expected=f"a time after {self.cuts[-1]}",
                    found=str(until),
                )
            self.learn(dataset, until)
            self.cuts = np.append(self.cuts, until).astype(np.int64)

    def _start(self, dataset: Dataset) -> None:
        """Use the dense item ids of a dataset as the field's own item indices, and remove all cutoffs."""
        self.cuts, self.known = np.zeros(0, dtype=np.int64), _hashes(dataset)
        self._bound = (dataset.items, np.arange(dataset.n_items))

    def numbering(self, dataset: Dataset) -> Array:
        """Return the field's own index of each item of a dataset, (n_items,) int64; −1 for an unknown item.

        Safe to call from several threads, also for different datasets.
        """
        bound = self._bound
        if bound is None or bound[0] is not dataset.items:
            with self._changing:
                hashes, known = _hashes(dataset), self.known
                order = np.argsort(known, kind="stable")
                places = order[np.minimum(np.searchsorted(known[order], hashes), len(order) - 1)] if len(order) else 0
                there = known[places] == hashes if len(order) else np.zeros(len(hashes), dtype=bool)
                bound = (dataset.items, self.newcomers(dataset, np.where(there, places, -1)))
                self._bound = bound
        return bound[1]

    def newcomers(self, dataset: Dataset, numbers: Array) -> Array:
        """Add the items of a dataset that are unknown (−1 in ``numbers``), and return the indices of all its items.

        The base class adds no items. The caller holds the lock.
        """
        return numbers

    def known_at(self, numbers: Array, times: Array | int) -> Array:
        """Return the item indices, with −1 for items that are not yet known at the given times (microseconds).

        The base class returns the indices unchanged.
        """
        return numbers

    def matrix(self, rows: Rows) -> Array:
        """Return the values for each row, (N, F) float32; 0 for rows before the first cutoff."""
        out = np.zeros((len(rows), len(self.labels)), dtype=np.float32)
        if not (len(rows) and self.labels):
            return out
        numbers = self.numbering(rows.dataset)
        order, starts, counts = requests_of(rows.user, rows.time)
        users, times = rows.user[order[starts]], rows.time[order[starts]]
        items, _ = rows.dataset.history.before_batch(users, times, self.history)
        histories = self.known_at(np.where(items >= 0, numbers[items], -1), times[:, None])
        lengths = (items >= 0).sum(axis=1)
        cuts = np.searchsorted(self.cuts, times, side="right") - 1
        candidates = self.known_at(numbers[rows.item], rows.time)
        by_size = np.lexsort((lengths, counts, cuts))
        for block in _blocks(by_size[cuts[by_size] >= 0], cuts, counts, lengths):
            width, longest = int(counts[block].max()), max(int(lengths[block].max()), 1)
            there = np.arange(width) < counts[block][:, None]
            places = order[np.minimum(starts[block][:, None] + np.arange(width), len(order) - 1)]
            found = self.agreement(
                int(cuts[block[0]]), np.where(there, candidates[places], -1), histories[block, :longest]
            )
            out[places[there]] = found.T[there.ravel()]
        return out


def requests_of(users: Array, times: Array) -> tuple[Array, Array, Array]:
    """Return an order (N,) that groups rows by user and time, and the start and size of each group (request), (R,)."""
    if (users == users[0]).all() and (times == times[0]).all():
        return np.arange(len(users)), np.zeros(1, dtype=np.int64), np.array([len(users)])
    order = np.lexsort((times, users))
    new = (np.diff(users[order]) != 0) | (np.diff(times[order]) != 0)
    starts = np.concatenate([[0], 1 + np.flatnonzero(new)])
    return order, starts, np.diff(np.append(starts, len(users)))


def _blocks(requests: Array, cuts: Array, counts: Array, lengths: Array) -> list[Array]:
    """Split requests, sorted by cutoff and size, into blocks with one cutoff and at most :data:`BLOCK` cosines each."""
    parts: list[Array] = []
    cut, size, long = cuts[requests].tolist(), counts[requests].tolist(), np.maximum(lengths[requests], 1).tolist()
    start, longest = 0, 0
    for place in range(len(requests)):
        longest = max(longest, long[place])
        if place > start and (cut[place] != cut[start] or size[place] * longest * (place + 1 - start) > BLOCK):
            parts.append(requests[start:place])
            start, longest = place, long[place]
    return [*parts, requests[start:]] if len(requests) else parts


def _hashes(dataset: Dataset) -> Array:
    return stable_hash(dataset.items["item_id"].to_list())


def cosine_match(vectors: QuantisedVectors, items: Array, histories: Array) -> Array:
    """Return the values of :func:`taiji.nn.set_match.history_match` for candidates of requests, (5, R * M) float32.

    Args:
        vectors: vectors of the items.
        items: (R, M) candidates; −1 is padding.
        histories: (R, L) items of the histories, newest first; −1 is padding.
    """
    known = (vectors.inverse_lengths[histories] > 0) & (histories >= 0)
    return history_match(vectors.batch_cosines(histories, items), known.T)


class CollaborativeMatch(PastField):
    """Field for the agreement of a candidate with the history, from the log alone. It has eight values:

    - ``<name>_mean, _max, _top3, _last, _recent``: cosines of item factors (from an SVD), see
      :func:`taiji.nn.set_match.history_match`;
    - ``<name>_co_sum, _co_max, _co_recent``: co-occurrence of the candidate with the items of the history, see
      :func:`cooccurrence_match`.

    Args:
        history, refreshes, least_rows: see :class:`PastField`.
        name: name of the field.
    """

    shared = True

    def __init__(self, history: int = 50, refreshes: int = 4, name: str = "collaborative", least_rows: int = 0) -> None:
        super().__init__(name, history, refreshes, least_rows)
        self.factors: list[QuantisedVectors] = []
        self.neighbours: list[tuple[Array, Array]] = []
        self.options = {"history": history, "refreshes": refreshes, "name": name, "least_rows": least_rows}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values."""
        if self.is_left_out:
            return ()
        return tuple(f"{self.name}_{part}" for part in (*HISTORY_MATCHES, "co_sum", "co_max", "co_recent"))

    def _start(self, dataset: Dataset) -> None:
        super()._start(dataset)
        self.factors, self.neighbours = [], []

    def learn(self, dataset: Dataset, until: int) -> None:
        """Store the item factors and neighbours that are learnt from the interactions before ``until``."""
        state, numbers = past_state(dataset, until), self.numbering(dataset)
        self.factors.append(state.factors if self._same(numbers) else _moved(state.factors, numbers, len(self.known)))
        self.neighbours.append(
            (state.neighbours, state.weights)
            if self._same(numbers)
            else _moved_neighbours(state, numbers, len(self.known))
        )

    def _same(self, numbers: Array) -> bool:
        return len(numbers) == len(self.known) and bool((numbers == np.arange(len(numbers))).all())

    def agreement(self, cut: int, items: Array, histories: Array) -> Array:
        """Return the cosines and co-occurrences."""
        neighbours, weights = self.neighbours[cut]
        return np.concatenate(
            [
                cosine_match(self.factors[cut], items, histories),
                cooccurrence_match(neighbours, weights, items, histories, len(self.known)),
            ]
        )

    def tensors(self) -> dict[str, Array]:
        """Return the cutoffs, the hashes of the known items, and the learnt arrays with one entry per cutoff."""
        width = max((found.shape[1] for found, _ in self.neighbours), default=0)
        count, cuts = len(self.known), len(self.cuts)
        neighbours = np.full((cuts, count, width), -1, dtype=np.int32)
        weights = np.zeros((cuts, count, width), dtype=np.float32)
        for place, (found, weight) in enumerate(self.neighbours):
            neighbours[place, :, : found.shape[1]], weights[place, :, : found.shape[1]] = found, weight
        factors = [vectors.codes for vectors in self.factors]
        return {
            "cuts": self.cuts,
            "known": self.known,
            "factors": np.stack(factors) if factors else np.zeros((0, count, WIDTH), np.int8),
            "neighbours": neighbours,
            "weights": weights,
        }

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Restore the field from :meth:`tensors`."""
        self.cuts, self.known = tensors["cuts"], tensors["known"]
        self.factors = [QuantisedVectors(codes) for codes in tensors["factors"]]
        self.neighbours = list(zip(tensors["neighbours"], tensors["weights"]))
        self._bound = None


def _moved(vectors: QuantisedVectors, numbers: Array, count: int) -> QuantisedVectors:
    """Return the vectors of a dataset, in the order of the field's own item indices."""
    codes = np.zeros((count, vectors.codes.shape[1]), dtype=np.int8)
    codes[numbers[numbers >= 0]] = vectors.codes[numbers >= 0]
    return QuantisedVectors(codes)


def _moved_neighbours(state: PastState, numbers: Array, count: int) -> tuple[Array, Array]:
    width = state.neighbours.shape[1]
    neighbours, weights = np.full((count, width), -1, np.int32), np.zeros((count, width), np.float32)
    own = numbers >= 0
    found = np.where(state.neighbours[own] >= 0, numbers[state.neighbours[own]], -1)
    neighbours[numbers[own]] = found
    weights[numbers[own]] = np.where(found >= 0, state.weights[own], 0.0)
    return neighbours, weights


def cooccurrence_match(neighbours: Array, weights: Array, items: Array, histories: Array, count: int) -> Array:
    """Return how strongly candidates co-occur with the items of the history, (3, R * M) float32.

    The three values of a candidate are the sum and the maximum of the weights, and their sum with decay by position.

    Args:
        neighbours: (N, K) co-occurring items of each item, padded with −1.
        weights: (N, K) weights of the co-occurrences.
        items: (R, M) candidates; −1 is padding.
        histories: (R, L) items of the histories, newest first; −1 is padding.
        count: number N of items.
    """
    requests, width = items.shape
    out = np.zeros((3, requests, width), dtype=np.float32)
    near_each = max(histories.shape[1] * neighbours.shape[1], 1)
    size = max(1, min(requests, BLOCK // near_each, math.isqrt(BLOCK // max(width, 1))))
    local = np.full(count, -1, dtype=np.int32)  # index of an item among the candidates of a block; −1 for other items
    for start in range(0, requests, size):
        wanted, past = items[start : start + size], histories[start : start + size]
        candidate = wanted[wanted >= 0]
        local[candidate] = np.arange(len(candidate), dtype=np.int32)
        keys = (np.arange(len(wanted))[:, None] * len(candidate) + local[wanted])[wanted >= 0]
        cell_of = np.full(len(wanted) * len(candidate), -1, dtype=np.int32)
        cell_of[keys] = np.arange(len(keys), dtype=np.int32)  # the index in ``keys`` of each (request, candidate)
        row, place = np.nonzero(past >= 0)
        near = neighbours[past[row, place]]
        vote, neighbour = np.nonzero((near >= 0) & (local[near] >= 0))
        cell = cell_of[local[near[vote, neighbour]] + row[vote] * len(candidate)]
        vote, neighbour, cell = vote[cell >= 0], neighbour[cell >= 0], cell[cell >= 0]
        votes = weights[past[row, place][vote], neighbour].astype(np.float64)
        largest = np.zeros(len(keys))
        np.maximum.at(largest, cell, votes)
        decayed = votes * (CO_DECAY**place)[vote]
        sums = np.bincount(cell, votes, len(keys)), largest, np.bincount(cell, decayed, len(keys))
        found = cell_of[keys]  # for a repeated candidate, the index of its last occurrence
        out[:, start : start + size][:, wanted >= 0] = [values[found] for values in sums]
        local[candidate] = -1
    return out.reshape(3, -1)


class TextMatch(PastField):
    """Field for the agreement of a candidate with the history, from the texts of the items. No language model runs per
    user.

    The field has these values:

    - ``<name>_mean, …``: cosines of whitened text vectors;
    - ``<name>_map_mean, …``: cosines of item factors that a ridge regression predicts from the texts, so that new items
      have factors as well;
    - ``<name>_vector_0, …``: first principal components of the candidate's own text.

    Args:
        embedder: ``auto`` (MiniLM if its package is installed, otherwise WordLlama), or a name for
            :func:`taiji.language.embed.load_embedder`.
        vector: largest number of principal components.
        history, refreshes, least_rows: see :class:`PastField`.
        name: name of the field.
        description: largest number of characters of an item's description that are embedded with its title; 0 for none.
    """

    learnt = ("embedder_used",)
    shared = True

    def __init__(
        self,
        embedder: str = "auto",
        vector: int = 32,
        history: int = 50,
        refreshes: int = 4,
        name: str = "text_match",
        least_rows: int = 0,
        description: int = 0,
    ) -> None:
        super().__init__(name, history, refreshes, least_rows)
        self.description = description
        self.embedder, self.vector, self.embedder_used = embedder, vector, ""
        self.options = {
            "embedder": embedder,
            "vector": vector,
            "history": history,
            "refreshes": refreshes,
            "name": name,
            "least_rows": least_rows,
            "description": description,
        }
        self.space = TextSpace.empty()
        self.vectors = QuantisedVectors(np.zeros((0, 1), np.int8))
        self.components: Array = np.zeros((0, vector), np.float32)
        self.maps: list[Array] = []
        self.mapped: list[QuantisedVectors] = []

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values; empty if the items have no texts."""
        if self.is_left_out or not self.space.width:
            return ()
        matches = [f"{self.name}_{part}" for part in HISTORY_MATCHES]
        mapped = [f"{self.name}_map_{part}" for part in HISTORY_MATCHES]
        return (*matches, *mapped, *(f"{self.name}_vector_{place}" for place in range(self.components.shape[1])))

    def _start(self, dataset: Dataset) -> None:
        super()._start(dataset)
        self.maps, self.mapped = [], []
        used = chosen_embedder(self.embedder) if self.tells(dataset) else None
        self.space, self.embedder_used = TextSpace.empty(), used or ""
        if used is not None:
            every = np.arange(dataset.n_items)
            found = self.embed(dataset, every)
            self.space = TextSpace.fit(np.where(self.whitens(dataset, every)[:, None], found, 0), self.vector)
            self.vectors, self.components = self.space.place(found)

    def tells(self, dataset: Dataset) -> bool:
        """Return True if the items have texts that distinguish them."""
        return has_texts(dataset)

    def whitens(self, dataset: Dataset, items: Array) -> Array:
        """Return a mask (n,) bool of the items whose texts are used to learn the whitening. The base class uses all."""
        return np.ones(len(items), dtype=bool)

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of the given items of a dataset, (n, d) float32."""
        texts = item_texts(dataset, self.description)
        return embedded(self.embedder_used, [texts[item] for item in items])

    @property
    def learns(self) -> bool:
        """True if the items have texts."""
        return self.space.width > 0

    def learn(self, dataset: Dataset, until: int) -> None:
        """Fit the map from the texts to the item factors, which are learnt from the interactions before ``until``."""
        numbers = self.numbering(dataset)
        state = past_state(dataset, until)
        own = self.known_at(numbers[: dataset.n_items], until)
        made = to_collaborative(self.vectors.take(own), state.factors, state.counts)
        self.maps.append(made)
        self.mapped.append(self.space.mapped(self.vectors, made))

    def newcomers(self, dataset: Dataset, numbers: Array) -> Array:
        """Add the vectors of items that are new since training, from their texts, and return the item indices."""
        new = np.flatnonzero(numbers < 0)
        if len(new) and self.space.width:
            vectors, components = self.space.place(self.embed(dataset, new))
            numbers = numbers.copy()
            numbers[new] = len(self.known) + np.arange(len(new))
            # Concurrent readers do not read the new items, because their indices are not published yet.
            self.known = np.concatenate([self.known, _hashes(dataset)[new]])
            self.vectors = QuantisedVectors(np.concatenate([self.vectors.codes, vectors.codes]))
            self.components = np.concatenate([self.components, components])
            self.mapped = [self.space.mapped(self.vectors, made) for made in self.maps]
        return numbers

    def agreement(self, cut: int, items: Array, histories: Array) -> Array:
        """Return the cosines of texts, the cosines of predicted factors, and the components of the candidates."""
        flat = items.ravel()
        components = np.where(flat[:, None] >= 0, self.components[flat], np.float32(0))
        return np.concatenate(
            [
                cosine_match(self.vectors, items, histories),
                cosine_match(self.mapped[cut], items, histories),
                components.T,
            ]
        )

    def tensors(self) -> dict[str, Array]:
        """Return the cutoffs, the hashes and text vectors of the items, and the map to item factors of each cutoff."""
        return {
            "cuts": self.cuts,
            "known": self.known,
            "codes": self.vectors.codes,
            "components": self.components,
            "maps": np.stack(self.maps) if self.maps else np.zeros((0, self.vectors.codes.shape[1], WIDTH)),
            **self.space.tensors(),
        }

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Restore the field from :meth:`config` and :meth:`tensors`."""
        super().restore(config, tensors)
        self.cuts, self.known = tensors["cuts"], tensors["known"]
        self.space = TextSpace.restore(tensors)
        self.vectors, self.components = QuantisedVectors(tensors["codes"]), tensors["components"]
        self.maps = list(tensors["maps"])
        self.mapped = [self.space.mapped(self.vectors, made) for made in self.maps]
        self._bound = None
