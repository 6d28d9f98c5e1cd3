"""Packed rows hold every sequence once, unbroken, and waste little."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from taiji.nn.packing import pack


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=60), extra=st.integers(0, 5))
def test_every_entry_has_a_place_of_its_own(lengths, extra):
    lengths, length = np.array(lengths), max(lengths) + extra
    packing = pack(lengths, length)
    places = packing.places(lengths)
    assert len(np.unique(places)) == lengths.sum() and places.max(initial=0) < packing.rows * length
    first = 0
    for sequence, size in enumerate(lengths):
        own = places[first : first + size]
        assert (own == packing.row[sequence] * length + packing.start[sequence] + np.arange(size)).all()
        assert packing.start[sequence] + size <= length
        first += size
    # First-fit decreasing leaves no two rows that are both at most half full.
    used = np.bincount(packing.row, lengths, minlength=packing.rows)
    assert (used > 0).all() and (used * 2 <= length).sum() <= 1
