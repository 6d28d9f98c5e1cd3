"""A retriever for a configuration: items whose titles start like the titles of items in the user's history."""

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
    """Items whose titles start like the titles of items in the user's history.

    Items with the start that occurs most often in the history come first. Items with the same start are sorted by
    popularity.
    """

    Settings = SameStartSettings
    settings: SameStartSettings

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Number the starts of the catalogue's titles, and count each item's interactions.

        ``places`` contains the number in the dataset of each item of the catalogue.
        """
        titles = self.dataset.items["title"].fill_null("").to_list()
        starts = [" ".join(titles[place].lower().split()[: self.settings.words]) for place in self.places]
        self.start = np.unique(starts, return_inverse=True)[1].astype(np.int64)
        taken = self.codes[history.items]  # the reverse of places; -1 for items that are not in the catalogue
        self.counts = np.bincount(taken[taken >= 0], minlength=len(self.places)).astype(np.float64)

    def scores(self, requests: Requests) -> NDArray[Any]:
        """Return scores (B, N), from interactions strictly before each request; -inf for items not to retrieve."""
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
