"""A retriever for a configuration: items whose titles start like those of the items that the user has taken."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from taiji.core.component import Requests
from taiji.data.history import History
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.settings import RetrieverSettings


class SameStartSettings(RetrieverSettings):
    """Settings in addition to those of every retriever."""

    words: PositiveInt = 1
    """Number of first words, often a brand, that two titles must share to have the same start."""


class SameStart(CatalogueRetriever):
    """Items whose titles start like those of items that the user has taken: those of the most often taken start first, and within a start the most popular first."""

    Settings = SameStartSettings
    settings: SameStartSettings

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Number the starts of the catalogue's titles, and count each item's interactions. ``places`` has, for each item of the catalogue, its number in the dataset."""
        titles = self.dataset.items["title"].fill_null("").to_list()
        starts = [" ".join(titles[place].lower().split()[: self.settings.words]) for place in self.places]
        self.start = np.unique(starts, return_inverse=True)[1].astype(np.int64)
        taken = self.codes[history.items]  # the reverse of places; -1 for items that are not in the catalogue
        self.counts = np.bincount(taken[taken >= 0], minlength=len(self.places)).astype(np.float64)

    def scores(self, requests: Requests) -> NDArray[Any]:
        """Return scores (B, N); -inf for items that must not be retrieved. ``recent`` looks strictly before each request."""
        items, _ = self.recent(requests)
        rows, places = np.nonzero(items >= 0)
        liked = np.zeros((len(requests), int(self.start.max()) + 1))
        np.add.at(liked, (rows, self.start[items[rows, places]]), 1.0)
        match = liked[:, self.start]
        return np.where(match > 0, match + self.counts / (self.counts.max() + 1), -np.inf)

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the learnt arrays, which ``save`` writes."""
        return {"start": self.start, "counts": self.counts}

    def restore(self, weights: dict[str, NDArray[Any]], device: str | None) -> None:
        """Restore the weights."""
        self.start, self.counts = weights["start"], weights["counts"]
