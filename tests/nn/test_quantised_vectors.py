"""Cosines of int8 vectors are near the true ones, and the same bytes however they are grouped."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.nn.quantised_vectors import WIDEST, QuantisedVectors, exact_product

RNG = np.random.default_rng(0)


def test_cosines_are_near_the_true_ones():
    vectors = RNG.standard_normal((20, 64))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    quantised = QuantisedVectors.of(vectors)
    np.testing.assert_allclose(quantised.cosines(quantised), unit @ unit.T, atol=0.01)


def test_every_partial_sum_is_exact_at_the_widest():
    largest = QuantisedVectors(np.full((2, WIDEST), 127, np.int8))
    np.testing.assert_array_equal(largest.cosines(largest), np.float32(1.0) * np.ones((2, 2), np.float32))
    with pytest.raises(InputError, match="too many dimensions"):
        QuantisedVectors(np.zeros((1, WIDEST + 1), np.int8))


def test_grouping_changes_no_byte():
    vectors = QuantisedVectors.of(RNG.standard_normal((300, 96)))
    sets, items = RNG.integers(-1, 300, (9, 13)), RNG.integers(-1, 300, (9, 40))
    whole = vectors.batch_cosines(sets, items)
    for row in range(9):
        for places in (slice(0, 1), slice(5, 12)):
            alone = vectors.batch_cosines(sets[row : row + 1], items[row : row + 1, places])
            assert alone[:, 0].tobytes() == np.ascontiguousarray(whole[:, row, places]).tobytes()


def test_nothing_has_no_direction():
    vectors = QuantisedVectors.of(np.array([[0.0, 0.0], [3.0, 4.0]]))
    assert not vectors.cosines(vectors)[0].any()
    np.testing.assert_allclose(vectors.unit()[1], [0.6, 0.8], atol=0.005)
    assert not vectors.take(np.array([-1])).codes.any()


def test_exact_product_does_not_depend_on_other_rows():
    left, right = RNG.standard_normal((200, 50)), RNG.standard_normal((50, 7))
    whole = exact_product(left, right)
    np.testing.assert_allclose(whole, left @ right, rtol=1e-4, atol=1e-4)
    for row in (0, 17, 199):
        assert exact_product(left[row : row + 1], right).tobytes() == whole[row : row + 1].tobytes()
    assert not exact_product(np.zeros((2, 50)), right).any()


@pytest.mark.parametrize("width", [1, 512, 513, 4096])
def test_exact_product_is_exact_at_every_width(width):
    """The largest sums of a width equal those of Python's integers, in any order of summation."""
    left, right = np.full((1, width), 1 - 2.0**-30), np.full((width, 1), 1 - 2.0**-30)
    left[0, ::2] = 1 - RNG.random(left[0, ::2].shape) * 1e-3
    found = exact_product(left, right)
    turned = RNG.permutation(width)
    assert found.tobytes() == exact_product(left[:, turned], right[turned]).tobytes()
    bits = next(b for b in range(22, 0, -1) if width << 2 * b <= 2**53)
    numbers = [[round(value * 2**bits) for value in part.ravel().tolist()] for part in (left, right)]
    assert found[0, 0] == sum(a * b for a, b in zip(*numbers)) / 2 ** (2 * bits)
