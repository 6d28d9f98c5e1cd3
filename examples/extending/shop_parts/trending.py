"""A retriever: the items clicked most in the seven days before the request."""

import numpy as np

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.data.dataset import Dataset
from taiji.data.statistics import statistics_of


class Trending:
    """Recent popularity. At a given time, every user gets the same list.

    Args:
        dataset: dataset from whose log clicks are counted, strictly before the time of each request.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return at most ``k`` items clicked in the seven days before each request, most clicked first."""
        items = np.arange(self.dataset.n_items)
        times, place = np.unique(requests.time, return_inverse=True)
        users = np.zeros(len(times) * len(items), dtype=np.int64)  # the counts do not depend on users
        asked = statistics_of(self.dataset).at(users, np.tile(items, len(times)), np.repeat(times, len(items)))
        clicks = asked["item_clicks_7d"].reshape(len(times), -1)
        order = np.argsort(-clicks, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(clicks, order, axis=1)
        return Slate(np.where(scores > 0, order, NO_ITEM)[place], scores[place])
