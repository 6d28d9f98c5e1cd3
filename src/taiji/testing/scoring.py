"""Checks of scorers."""

from __future__ import annotations

from typing import Any

import numpy as np

from taiji.core.component import NO_ITEM, Predictions, Requests, Scorer, Slate
from taiji.data.dataset import Dataset
from taiji.testing.datasets import requests_of


def check_scorer(
    scorer: Scorer[Any], dataset: Dataset, requests: Requests | None = None, *, tolerance: float = 1e-6, seed: int = 0
) -> None:
    """Check the contract of :class:`taiji.core.component.Scorer`.

    Permuting candidates permutes the predictions, scoring in pieces equals scoring at once, scoring does not change
    the request state, padding does not affect other candidates, and every prediction is finite, float64 and of the
    slate's shape.

    Args:
        scorer: scorer fitted on ``dataset``.
        dataset: dataset of the scorer.
        requests: requests to score; by default those of the first users, after the log's end.
        tolerance: absolute tolerance. The relative tolerance is ten times as large, because matrix products of
            different shapes round differently in the last bits.
        seed: seed of the candidates.
    """
    requests = requests_of(dataset) if requests is None else requests
    random = np.random.default_rng(seed)
    places = min(7, dataset.n_items)
    items = np.stack([random.permutation(dataset.n_items)[:places] for _ in range(len(requests))])
    state = scorer.encode(requests)
    assert len(state) == len(requests), f"the state has {len(state)} requests, not {len(requests)}"
    found = scorer.score(state, Slate(items))
    assert found, "there are no predictions"
    for task, values in found.items():
        assert values.shape == items.shape, f"{task}: shape {values.shape}, expected {items.shape}"
        assert values.dtype == np.float64, f"{task}: {values.dtype}, expected float64"
        assert np.isfinite(values).all(), f"{task}: not finite"

    order = np.argsort(random.random(items.shape), axis=1)
    permuted = scorer.score(state, Slate(np.take_along_axis(items, order, axis=1)))
    _equal(
        permuted, {t: np.take_along_axis(v, order, axis=1) for t, v in found.items()}, tolerance, "permuted candidates"
    )

    pieces = [scorer.score(state, Slate(items[:, start : start + 3])) for start in range(0, places, 3)]
    _equal({t: np.concatenate([p[t] for p in pieces], axis=1) for t in found}, found, tolerance, "candidates in pieces")

    alone = [
        scorer.score(scorer.encode(requests.take(slice(r, r + 1))), Slate(items[r : r + 1]))
        for r in range(len(requests))
    ]
    _equal({t: np.concatenate([a[t] for a in alone]) for t in found}, found, tolerance, "requests one by one")

    padded = scorer.score(state, Slate(np.concatenate([items, np.full((len(items), 2), NO_ITEM)], axis=1)))
    _equal({t: v[:, :places] for t, v in padded.items()}, found, tolerance, "a padded slate")

    nothing = scorer.score(state, Slate(np.zeros((len(requests), 0), np.int64)))
    assert all(values.shape == (len(requests), 0) for values in nothing.values()), (
        "the result for an empty slate has the wrong shape"
    )
    _equal(scorer.score(state, Slate(items)), found, 0.0, "the same requests again")


def check_learns_checkerboard(scorer: Scorer[Any], dataset: Dataset, task: str = "click") -> None:
    """Check that every item of a user's own colour ranks above all others.

    See :func:`taiji.testing.datasets.checkerboard` for the colours.

    Args:
        scorer: scorer trained on the checkerboard ``dataset``.
        dataset: the checkerboard.
        task: name of the prediction to check.
    """
    requests = requests_of(dataset, dataset.n_users)
    items = np.tile(np.arange(dataset.n_items), (len(requests), 1))
    scores = scorer.score(scorer.encode(requests), Slate(items))[task]
    own = (requests.user[:, None] + items) % 2 == 0
    wrong = [int(user) for user, mine, row in zip(requests.user, own, scores) if row[mine].min() <= row[~mine].max()]
    assert not wrong, (
        f"items of the other colour are ranked above items of their own colour for users {wrong[:5]} ({len(wrong)} in total)"
    )


def _equal(found: Predictions, expected: Predictions, tolerance: float, what: str) -> None:
    assert set(found) == set(expected), f"{what}: tasks {sorted(found)}, expected {sorted(expected)}"
    for task in expected:
        np.testing.assert_allclose(
            found[task], expected[task], rtol=10 * tolerance, atol=tolerance, err_msg=f"{what}: {task}"
        )
