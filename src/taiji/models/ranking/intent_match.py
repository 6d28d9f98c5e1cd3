"""Pair field for the agreement of a candidate with the user's intents.

A language model predicts the intents, which are stored in columns of the rows; see :mod:`taiji.data.intent_rows`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.fields import NumbersField, Rows
from taiji.data.intent_rows import INTENTS, IntentRows, intent_rows
from taiji.data.item_text import item_texts
from taiji.language.item_vectors import embedded, embedder_version
from taiji.models.ranking.pair_fields import requests_of
from taiji.models.ranking.text_space import TextSpace
from taiji.nn.set_match import SET_MATCHES, weighted_match

Array = NDArray[Any]
_WORD = re.compile(r"\w+")
NOTHING, NO_LEVEL = -2, -1
"""Code of an intent's category that no item has, and code of an item that has no category at a level."""
REQUESTS = 2048
"""Number of requests whose intents are unpacked at a time."""


@dataclass(frozen=True, eq=False)
class _Catalogue:
    """Text vectors and categories of the n items of a dataset.

    Attributes:
        codes: (k, n) float32 with integer values: whitened text vectors, one column per item.
        inverse_lengths: (n,) inverse lengths of the vectors in ``codes``.
        names: for each category level, a dict from normalised category name to category code.
        levels: (depth, n) category codes of the items.
    """

    codes: Array
    inverse_lengths: Array
    names: list[dict[str, int]]
    levels: Array


class IntentMatch(NumbersField):
    """Field for the agreement of a candidate with the intents in the user's feature row.

    The field has no values if the training rows had no intents. Its values are:

    - ``<name>_max, _mean, _soft_max``: the largest cosine between the candidate's whitened text vector and the
      intents, the weighted mean of these cosines, and a soft maximum, which lies between the two;
    - ``<name>_rank``: rank of the candidate in the catalogue by its largest cosine, on a logarithmic scale from 1
      (first) to 0 (last);
    - ``<name>_l1, …``: total weight of the intents that name the candidate's category at this level;
    - ``<name>_known``: 1 if the user has intents; without intents, all values are 0.

    Args:
        most: largest number of intents that are read; those with the largest weights are read first.
        name: name of the field, and prefix of the names of its values.
    """

    learnt = ("embedder", "depth")

    def __init__(self, most: int = 8, name: str = "intents") -> None:
        super().__init__(name, "pair")
        self.most, self.embedder, self.depth = most, "", 0
        self.options = {"most": most, "name": name}
        self.space = TextSpace.empty()
        self._bound: tuple[pl.DataFrame, _Catalogue] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values; empty if the training rows had no intents."""
        if not self.embedder:
            return ()
        levels = (f"l{level + 1}" for level in range(self.depth))
        return tuple(f"{self.name}_{part}" for part in (*SET_MATCHES, "rank", *levels, "known"))

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn the whitening from the item texts, with the embedder that was used for the intents of the rows.

        Raises:
            InputError: the intents come from several embedders.
        """
        self.embedder, self.depth, self.space, self._bound = "", len(dataset.levels), TextSpace.empty(), None
        if not set(INTENTS) <= set(rows.columns):
            return
        found = rows["intent_embedder"].drop_nulls().unique()
        if len(found) > 1:
            raise InputError(
                "The intents of the rows come from several embedders.",
                where=f"field {self.name}",
                expected="one embedder",
                found=", ".join(sorted(found)),
                fix="compute the features again",
            )
        space = TextSpace.fit(embedded(_name(found[0]), item_texts(dataset)), 1) if len(found) else TextSpace.empty()
        if space.width:
            self.space, self.embedder = space, found[0]

    def matrix(self, rows: Rows) -> Array:
        """Return the values for each row, (N, F) float32. Rows with the same user and time have the same intents."""
        out = np.zeros((len(rows), len(self.labels)), dtype=np.float32)
        if not (len(rows) and self.labels and set(INTENTS) <= set(rows.frame.columns)):
            return out
        order, starts, counts = requests_of(rows.user, rows.time)
        told = rows.frame.select(*INTENTS)[order[starts].tolist()]
        self._check(told)
        catalogue = self._catalogue(rows.dataset)
        for first in range(0, len(starts), REQUESTS):
            intents = intent_rows(told[first : first + REQUESTS], self.most, self.depth)
            known = np.flatnonzero(intents.weights.sum(axis=1) > 0).tolist()
            # Requests are sorted by user and time, and successive requests of a user mostly have the same intents.
            # Only the cosines of one set of intents are kept, because they take megabytes if the catalogue is large.
            for same in (
                list(group) for _, group in groupby(known, key=lambda place: intents.vectors[place].tobytes())
            ):
                cosines = self._cosines(catalogue, intents.vectors[same[0]])
                for place in same:
                    start = starts[first + place]
                    places = order[start : start + counts[first + place]]
                    out[places] = self._agreement(*cosines, intents, place, rows.item[places], catalogue).T
        return out

    def _cosines(self, catalogue: _Catalogue, intents: Array) -> tuple[Array, Array]:
        """Return the cosines of a request's intents with all items, and the largest cosine of each item, sorted.

        Args:
            catalogue: the n items.
            intents: (m, d) vectors of the intents; 0 for padding.

        Returns:
            (m, n) cosines, and (n,) largest cosines in ascending order.
        """
        there = np.abs(intents).sum(axis=1) > 0
        placed = self.space.place(intents)[0]
        # As in QuantisedVectors.cosines: products of integer codes are exact, whatever the other rows of the batch.
        cosines = placed.codes.astype(np.float32) @ catalogue.codes
        cosines *= placed.inverse_lengths[:, None]
        cosines *= catalogue.inverse_lengths
        best = np.where(there[:, None], cosines, np.float32(-2)).max(axis=0)
        return cosines, np.sort(best)

    def _agreement(
        self,
        cosines: Array,
        ranked: Array,
        intents: IntentRows,
        request: int,
        items: Array,
        catalogue: _Catalogue,
    ) -> Array:
        """Return the values for the candidates (M,) of one request, (F, M) float32."""
        weights = intents.weights[request]
        near = cosines[:, items]
        matches = weighted_match(near, np.repeat(weights[:, None], len(items), axis=1))
        above = len(ranked) - np.searchsorted(ranked, matches[0], side="right")
        rank = 1 - np.log1p(above) / np.log1p(max(len(ranked) - 1, 1))
        named = np.zeros((self.depth, len(items)), dtype=np.float32)
        for level in range(self.depth):
            for weight, claim in zip(weights, intents.levels[request, :, level]):
                code = NOTHING if claim is None else catalogue.names[level].get(_fold(claim), NOTHING)
                named[level] += weight * (catalogue.levels[level, items] == code)
        return np.concatenate([matches, rank[None], named, np.ones((1, len(items)))]).astype(np.float32)

    def _check(self, frame: pl.DataFrame) -> None:
        found = set(frame["intent_embedder"]) - {None}
        if found - {self.embedder}:
            raise InputError(
                "The intents come from a different embedder than those used in training.",
                where=f"field {self.name}",
                expected=self.embedder,
                found=", ".join(sorted(found)),
                fix="compute the features again, or train the ranker again",
            )

    def _catalogue(self, dataset: Dataset) -> _Catalogue:
        """Return the catalogue of a dataset. The catalogue of the last dataset is cached.

        Safe to call from several threads, also for different datasets.

        Raises:
            InputError: the installed embedder has another version than the one that embedded the intents.
        """
        bound = self._bound
        if bound is None or bound[0] is not dataset.items:
            name, version = _name(self.embedder), self.embedder.partition("+")[0].rpartition("@")[2]
            if embedder_version(name) != version:
                raise InputError(
                    "The embedder is not the one that embedded the intents.",
                    where=f"field {self.name}",
                    expected=f"{name}, version {version}",
                    found=f"version {embedder_version(name)}",
                    fix="install the version that was used for the features, or compute them again",
                )
            vectors, _ = self.space.place(embedded(name, item_texts(dataset)))
            names: list[dict[str, int]] = []
            levels = np.full((self.depth, dataset.n_items), NO_LEVEL, dtype=np.int64)
            for place, column in enumerate(dataset.levels[: self.depth]):
                known: dict[str, int] = {}
                values = dataset.items[column].cast(pl.String).to_list()
                levels[place] = [
                    NO_LEVEL if value is None else known.setdefault(_fold(value), len(known)) for value in values
                ]
                names.append(known)
            transposed = np.ascontiguousarray(vectors.codes.T, dtype=np.float32)
            bound = (dataset.items, _Catalogue(transposed, vectors.inverse_lengths, names, levels))
            self._bound = bound
        return bound[1]

    def tensors(self) -> dict[str, Array]:
        """Return the arrays of the whitening."""
        return self.space.tensors()

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Restore the field from :meth:`config` and :meth:`tensors`."""
        super().restore(config, tensors)
        self.space, self._bound = TextSpace.restore(tensors), None


def _fold(level: str) -> str:
    return " ".join(
        _WORD.findall(level.casefold())
    )  # only words are compared, because answers cannot contain some characters of a name, such as ; < >


def _name(embedder: str) -> str:
    return embedder.partition("+")[0].rpartition("@")[0]  # "name@version", then "+map" if the intents were mapped
