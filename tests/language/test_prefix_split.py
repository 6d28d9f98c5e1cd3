"""A tree in two: nothing lost, and both parts together see what the whole sees."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.language.prefix_split import SplitTree
from taiji.language.prefix_tree import PackedTree

FEW = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(FEW, st.integers(1, 6))
def test_both_parts_together_see_what_the_whole_sees(rows, least):
    tree = PackedTree(rows, least)
    split = SplitTree(tree)
    private = torch.from_numpy(split.is_private)
    assert torch.equal(tree.tokens[private], split.private.tokens)
    assert torch.equal(tree.positions[~private], split.shared.positions)
    for number, path in enumerate(tree.paths):
        alone = path[split.is_private[path]]
        assert (split.sequence[split.place[alone]] == number).all()
        assert all(not split.is_private[p] for p in path[: len(path) - len(alone)]), "what is shared comes first"
    seen = torch.zeros(len(private), len(private), dtype=torch.bool)
    seen[torch.outer(~private, ~private)] = split.shared.mask.flatten()
    seen[torch.outer(private, private)] = split.private.mask.flatten()
    for part in split.above:
        block = torch.zeros(len(split.private), len(split.shared), dtype=torch.bool)
        block[part.below, part.own] = True
        assert not (seen[private][:, ~private] & block).any(), "no pair twice"
        seen[torch.outer(private, ~private)] |= block.flatten()
        rows_below = torch.cat([level.rows.flatten().unique() for level, _ in part.levels])
        assert sorted(rows_below.tolist()) == list(range(part.below.start, part.below.stop))
        for level, sequences in part.levels:
            assert (split.sequence[level.rows] == sequences[:, None]).all()
    assert np.array_equal(seen.numpy(), tree.mask.numpy())
