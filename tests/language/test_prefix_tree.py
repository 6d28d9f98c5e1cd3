"""The packing: nothing lost, nothing doubled that is worth sharing, and every token sees exactly its own past."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.language.prefix_tree import PackedTree

FEW = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(FEW, st.integers(1, 6))
def test_every_token_attends_to_its_own_sequence_and_to_nothing_else(rows, least):
    tree = PackedTree(rows, least)
    mask = tree.mask.numpy()
    sees = tree.may_attend("cpu")
    for row, path in zip(rows, tree.paths):
        assert tree.tokens[path].tolist() == row
        assert tree.positions[path].tolist() == list(range(len(row)))
        for step, place in enumerate(path):
            assert np.array_equal(np.flatnonzero(mask[place]), np.sort(path[: step + 1]))
    place = np.arange(len(tree))
    import torch

    found = sees(0, 0, torch.from_numpy(place)[:, None], torch.from_numpy(place)[None, :])
    assert np.array_equal(found.numpy(), mask)


@settings(max_examples=100, deadline=None)
@given(FEW)
def test_with_one_token_worth_sharing_each_distinct_beginning_occurs_once(rows):
    beginnings = {tuple(row[: n + 1]) for row in rows for n in range(len(row))}
    assert len(PackedTree(rows, 1)) == len(beginnings)


def test_levels_and_crossings_cover_the_mask():
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 9, 50).tolist()
    rows = [prompt + rng.integers(0, 9, n).tolist() for n in (7, 8, 30, 29)] + [[1, 2, 3]]
    tree = PackedTree(rows)
    seen = np.zeros((len(tree), len(tree)), bool)
    for level in tree.levels:
        for row, valid in zip(
            level.rows.numpy(), np.ones_like(level.rows) if level.valid is None else level.valid.numpy()
        ):
            kept = row[valid.astype(bool)]
            seen[np.ix_(kept, kept)] |= np.tril(np.ones((len(kept), len(kept)), bool))
    for s in tree.crossings:
        assert not seen[s.stop : s.end, s.start : s.stop].any(), "no pair twice"
        seen[s.stop : s.end, s.start : s.stop] = True
    assert np.array_equal(seen, tree.mask.numpy())
    assert len(tree) == 50 + 7 + 8 + 30 + 29 + 3


def test_short_common_beginnings_are_repeated():
    rows = [[1, 2, 3, 4], [1, 2, 5, 6]]
    assert len(PackedTree(rows, 3)) == 8 and len(PackedTree(rows, 2)) == 6


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_nothing_to_pack(rows):
    with pytest.raises(TaijiError, match="nothing to pack"):
        PackedTree(rows)
