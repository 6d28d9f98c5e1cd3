"""Mutual information where it is known, and pairs counted one by one."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.metrics.independence import mutual_information, order_kept


def test_mutual_information_of_what_is_known():
    random = np.random.default_rng(0)
    values = random.random(8000)
    assert mutual_information(values, values) == pytest.approx(np.log(16), abs=0.03)
    found = [mutual_information(random.random(2000), random.random(2000), bins=8) for _ in range(60)]
    assert abs(np.mean(found)) < 0.01
    first = random.integers(0, 2, 20_000)
    second = np.where(random.random(20_000) < 0.2, 1 - first, first)
    assert mutual_information(first, second) == pytest.approx(
        np.log(2) + 0.2 * np.log(0.2) + 0.8 * np.log(0.8), abs=0.01
    )
    with pytest.raises(InputError, match="rows"):
        mutual_information(values[:1], values[:1])


def test_order_kept_agrees_with_a_loop():
    random = np.random.default_rng(1)
    before, after, group = random.random(40), random.integers(0, 5, 40), random.integers(0, 3, 40)
    right = []
    for number in range(3):
        own = np.flatnonzero(group == number)
        pairs = [(i, j) for i in own for j in own if before[i] < before[j]]
        right.append(np.mean([(after[j] > after[i]) + (after[j] == after[i]) / 2 for i, j in pairs]))
    expected = np.average(right, weights=np.bincount(group))
    assert order_kept(before, after, group) == pytest.approx(expected)
    assert order_kept(before, 3 * before - 1, random.random(40)) == 1.0
