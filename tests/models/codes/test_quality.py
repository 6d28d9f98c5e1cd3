from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.models.codes.quality import (
    agreement,
    collisions_by_item,
    collisions_by_target,
    entropies,
    hit_bound,
    quality,
    stability,
    surplus_items,
    utilisation,
)


@hypothesis_settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 25), levels=st.integers(1, 3), size=st.integers(1, 4), seed=st.integers(0, 99))
def test_collisions_are_what_counting_pair_by_pair_finds(rows, levels, size, seed):
    random = np.random.default_rng(seed)
    codes, targets = random.integers(0, size, (rows, levels)), random.integers(0, rows, 12)
    popularity = random.integers(0, 4, rows)
    owners = [[j for j in range(rows) if (codes[j] == codes[i]).all()] for i in range(rows)]
    assert collisions_by_item(codes) == sum(len(o) > 1 for o in owners) / rows
    assert np.isclose(surplus_items(codes), 1 - len({tuple(row) for row in codes}) / rows)
    assert collisions_by_target(codes, targets) == sum(len(owners[t]) > 1 for t in targets) / 12
    for k in (1, 2, rows):
        lists = [sorted(o, key=lambda j: (-popularity[j], j))[:k] for o in owners]
        assert hit_bound(codes, targets, popularity, k) == sum(t in lists[t] for t in targets) / 12
    assert quality(codes, (size,) * levels)["largest_group"] == max(map(len, owners))


@hypothesis_settings(max_examples=30, deadline=None)
@given(rows=st.integers(2, 20), seed=st.integers(0, 99))
def test_agreement_is_the_adjusted_rand_index(rows, seed):
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 3, rows), random.integers(0, 4, rows)
    pairs = list(combinations(range(rows), 2))
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    ours, theirs = sum(a[i] == a[j] for i, j in pairs), sum(b[i] == b[j] for i, j in pairs)
    chance, most = ours * theirs / len(pairs), (ours + theirs) / 2
    assert np.isclose(agreement(a, b), 1.0 if most == chance else (both - chance) / (most - chance))


def test_other_names_for_the_same_groups_are_stable():
    random = np.random.default_rng(0)
    codes = random.integers(0, 8, (500, 3))
    renamed = np.stack([random.permutation(8)[codes[:, level]] for level in range(3)], axis=1)
    np.testing.assert_allclose(stability(codes, renamed), 1.0)
    shuffled = random.permutation(codes)
    assert (np.abs(stability(codes, shuffled)) < 0.05).all()


def test_use_and_entropy():
    codes = np.asarray([[0, 0], [0, 1], [1, 2], [1, 3]])
    np.testing.assert_allclose(utilisation(codes, (4, 4)), [0.5, 1.0])
    np.testing.assert_allclose(entropies(codes), [1.0, 2.0])
