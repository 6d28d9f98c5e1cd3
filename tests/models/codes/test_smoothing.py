import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.codes.smoothing import smoothed, step_weights


def test_weights_of_the_steps_sum_to_one_and_fall():
    for alpha in (0.1, 0.5, 1.0):
        weights = step_weights(alpha, 3)
        assert weights.sum() == pytest.approx(1) and (np.diff(weights) <= 0).all()
    np.testing.assert_allclose(step_weights(0.5, 1), [2 / 3, 1 / 3])


def test_it_is_the_sum_of_powers_of_the_matrix():
    random = np.random.default_rng(0)
    rows, links = random.normal(size=(6, 3)), np.triu(random.random((6, 6)) < 0.5, 1)
    links = (links | links.T) * 1.0
    links[5] = links[:, 5] = 0.0
    first, second = np.nonzero(links)
    weight = random.random(len(first))
    matrix = np.zeros((6, 6))
    matrix[first, second] = weight
    alone = matrix.sum(axis=1) == 0
    matrix[alone, alone] = 1.0
    matrix /= matrix.sum(axis=1, keepdims=True)
    one = 0.7 * matrix @ rows + 0.3 * rows
    two = 0.7 * matrix @ one + 0.3 * rows
    wanted = sum(w * h for w, h in zip(step_weights(0.3, 2), (rows, one, two)))
    order = random.permutation(len(first))
    found = smoothed(rows, (first[order], second[order], weight[order]), alpha=0.3, steps=2)
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(found[5], rows[5])  # nothing is known of its company


def test_content_alone_is_left_as_it_is():
    rows = np.random.default_rng(1).normal(size=(4, 2))
    pairs = (np.asarray([0, 1]), np.asarray([1, 0]), np.asarray([1.0, 1.0]))
    np.testing.assert_allclose(smoothed(rows, pairs, alpha=1.0), rows)
    nothing = (np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    np.testing.assert_allclose(smoothed(rows, nothing), rows)
    with pytest.raises(InputError):
        smoothed(rows, pairs, alpha=0.0)
