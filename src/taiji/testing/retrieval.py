"""Checks of retrievers and item coders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from taiji.core.component import NO_ITEM, ItemCoder, Requests, Retriever
from taiji.data.dataset import Dataset
from taiji.testing.datasets import evenly_spaced, requests_of

PAST_REQUESTS = 8
"""Number of requests, at the times of clicks, for which the future is removed."""


def check_retriever(
    retriever: Retriever,
    dataset: Dataset,
    requests: Requests | None = None,
    *,
    k: int = 5,
    available: Callable[[Requests], np.ndarray] | None = None,
) -> None:
    """Check the contract of :class:`taiji.core.component.Retriever`.

    A list contains only available items of the catalogue, each at most once and in descending order of their scores.
    Padding occurs only at the end. A list is the same in repeated calls and for each request alone, and a smaller ``k``
    gives a prefix of it. If the retriever has ``bound_to``, a list does not change when the events from the request's
    time on are removed.

    Args:
        retriever: retriever fitted on ``dataset``.
        dataset: dataset of the retriever.
        requests: requests to answer; by default those of the first users, after the log's end.
        k: number of candidates requested.
        available: function from requests to (B, n_items) bool, True for items that may be shown; by default all.
    """
    requests = requests_of(dataset) if requests is None else requests
    slate = retriever.retrieve(requests, k)
    assert slate.items.shape[0] == len(requests), f"{slate.items.shape[0]} results for {len(requests)} requests"
    assert slate.items.shape[1] <= k, f"{slate.items.shape[1]} candidates, at most {k} were requested"
    assert ((slate.items >= 0) | (slate.items == NO_ITEM)).all() and (slate.items < dataset.n_items).all(), (
        "an item outside the catalogue"
    )
    allowed = np.ones((len(requests), dataset.n_items), bool) if available is None else available(requests)
    assert slate.scores is not None
    for row, (items, scores) in enumerate(zip(slate.items, slate.scores)):
        there = items[items != NO_ITEM]
        assert (items[: len(there)] != NO_ITEM).all(), f"request {row}: padding before an item"
        assert len(np.unique(there)) == len(there), f"request {row}: an item twice in {there.tolist()}"
        assert allowed[row, there].all(), f"request {row}: unavailable items {there[~allowed[row, there]].tolist()}"
        assert (np.diff(scores[: len(there)]) <= 0).all(), f"request {row}: items are not in the order of their scores"
    again = retriever.retrieve(requests, k)
    np.testing.assert_array_equal(again.items, slate.items, "a different result on the second call")
    for row in range(len(requests)):
        alone = retriever.retrieve(requests.take(slice(row, row + 1)), k).items[0]
        np.testing.assert_array_equal(
            _trimmed(alone), _trimmed(slate.items[row]), f"request {row}: a different result alone than in a batch"
        )
    fewer = retriever.retrieve(requests, max(1, k - 2)).items
    for row in range(len(requests)):
        found = _trimmed(fewer[row])
        np.testing.assert_array_equal(
            found, _trimmed(slate.items[row])[: len(found)], f"request {row}: a smaller k gives different candidates"
        )
    if hasattr(retriever, "bound_to"):
        clicked = dataset.events.filter(pl.col("click") == 1).sort("time", "event")
        for place in evenly_spaced(len(clicked), PAST_REQUESTS):
            user, time = clicked["user"][place], clicked["time"][place]
            asked = Requests(np.array([user]), np.array([time]))
            np.testing.assert_array_equal(
                _trimmed(retriever.bound_to(dataset.before(time)).retrieve(asked, k).items[0]),
                _trimmed(retriever.retrieve(asked, k).items[0]),
                f"user {user}: a different result after the events from the request's time on were removed",
            )


def check_coder(coder: ItemCoder, dataset: Dataset) -> None:
    """Check the contract of :class:`taiji.core.component.ItemCoder`.

    Every code is a sequence of non-negative integers, all of the same length. It is the same in repeated calls, and
    does not depend on the other items. Every item is among the items to which its code decodes. ``quality`` reports the
    true collisions: the share of items whose code belongs to several items.

    Args:
        coder: a fitted coder.
        dataset: dataset of the coded items.
    """
    items = np.arange(dataset.n_items)
    codes = coder.encode(items)
    assert codes.ndim == 2 and len(codes) == len(items), f"codes of shape {codes.shape}, expected ({len(items)}, L)"
    assert np.issubdtype(codes.dtype, np.integer) and (codes >= 0).all(), "codes are not non-negative integers"
    np.testing.assert_array_equal(coder.encode(items), codes, "codes changed between two calls")
    np.testing.assert_array_equal(coder.encode(items[::-1])[::-1], codes, "an item's code depends on the others")
    for item, owners in zip(items, coder.decode(codes)):
        assert item in owners, f"item {item} is not among those of its code: {np.asarray(owners).tolist()}"
    quality = coder.quality()
    _, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    collided = float((counts[inverse.ravel()] > 1).mean())
    assert abs(quality["collisions"] - collided) < 1e-12, f"collisions {quality['collisions']}, counted {collided}"


def _trimmed(items: np.ndarray) -> np.ndarray:
    return items[items != NO_ITEM]
