"""Sets of intents: the values that can be computed by hand, and what must not change them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from taiji.metrics.intent_sets import best_cosines, coverage, merged, redundancy, slate_values

AXES = np.eye(4, dtype=np.float32)


def test_coverage_is_the_mean_of_the_best_cosines():
    half = (AXES[0] + AXES[1]) / np.sqrt(2)
    intents = np.stack([[AXES[0], half], [AXES[2], 0 * half], [0 * half, 0 * half]])
    items = np.stack([[AXES[0], AXES[1]], [-AXES[2], 0 * half], [AXES[0], AXES[1]]])
    assert coverage(intents, items) == pytest.approx([(1 + np.sqrt(0.5)) / 2, 0, 0])
    assert np.isnan(coverage(intents[:1], np.zeros((1, 2, 4)))).all()


def test_one_more_intent_never_covers_less():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 9, 6))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    values = [coverage(vectors[:, :count], vectors[:, 6:]) for count in (1, 2, 4, 6)]
    assert all((more >= fewer).all() for fewer, more in pairwise(values))
    assert (values[0] >= 0).all() and (values[-1] <= 1).all()


def test_redundancy_counts_repetitions_by_how_near_they_are():
    at = 0.9 * AXES[0] + np.sqrt(1 - 0.81) * AXES[1]
    none = 0 * AXES[0]
    sets = np.stack(
        [
            [AXES[0], AXES[1], AXES[2]],
            [AXES[0], AXES[0], AXES[0]],
            [AXES[0], at, AXES[2]],
            [AXES[0], none, none],
            [none, none, none],
        ]
    )
    assert redundancy(sets, near=0.8) == pytest.approx([0, 1, 0.25, 0, 0], abs=1e-6)


def test_a_slate_is_worth_its_place_between_the_worst_and_the_best():
    values = np.array([[0.0, 0.2, 0.5, 1.0, np.nan], [0.3, 0.3, 0.3, 0.3, 0.3]])
    best = np.array([[0.0, 0.1, 0.8, 0.9, -np.inf], [1.0, 2.0, 3.0, 4.0, 5.0]])
    assert slate_values(best, values, 2).tolist() == [1, 0]
    assert slate_values(-best, values, 2).tolist() == [0, 0]
    assert slate_values(np.array([[1.0, 0.0, 0.0, 0.9, 0.0]]), values[:1], 2) == pytest.approx([(0.5 - 0.1) / 0.65])
    assert slate_values(best[:1], values[:1], 9).tolist() == [0]  # all candidates are one slate
    # affine values: the scaling is the log's, not the ranker's
    assert slate_values(best[:1], 3 * values[:1] + 7, 2) == pytest.approx([1])


def test_missing_intents_retrieve_nothing():
    intents = np.stack([[AXES[0], 0 * AXES[0]], [0 * AXES[0], 0 * AXES[0]]])
    assert best_cosines(intents, np.stack([-AXES[:2]] * 2)).tolist() == [[-1, 0], [-1, -1]]


def test_near_duplicates_lend_their_weight_to_the_first():
    near = 0.95 * AXES[0] + np.sqrt(1 - 0.95**2) * AXES[1]
    places, weights = merged(np.stack([AXES[0], AXES[2], near, 0 * near, AXES[2]]), np.array([0.1, 0.2, 0.3, 9, 0.3]))
    assert places.tolist() == [1, 0] and weights == pytest.approx([0.5, 0.4])
    places, weights = merged(np.zeros((2, 4)), np.ones(2))
    assert len(places) == len(weights) == 0
