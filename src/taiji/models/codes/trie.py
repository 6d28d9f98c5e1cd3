"""Trie of item codes, stored in sorted arrays, and restrictions of the trie to permitted items.

Items with equal codes share a leaf. The nodes of a level are the distinct prefixes in lexicographic order. Therefore,
the children of a node are a contiguous range, ascending by code, and no Python loop over rows or nodes is needed.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.data.history import rows_and_places

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class CodeTrie:
    """Trie of the prefixes of item codes. Level 0 has only the root, and level L has the leaves.

    Attributes:
        sizes: number of codes of each level (L,); the codes of a level are 0 … size − 1.
        offsets: L arrays (n_l + 1,), where n_l is the number of nodes of level l. The children of node v of level l are
            the nodes ``offsets[l][v]:offsets[l][v + 1]`` of level l + 1.
        codes: L arrays (n_{l + 1},) with the code that leads to each node of level l + 1.
        node_of: (L + 1, N) node of each item on each level.
        leaf_offsets: (n_L + 1,) offsets of the leaves in ``leaf_items``.
        leaf_items: (N,) items of each leaf, most popular first.
        log_shares: (N,) logarithm of each item's share of its leaf, which is the item's popularity + 1 divided by the
            sum of popularity + 1 over the leaf.
    """

    sizes: tuple[int, ...]
    offsets: tuple[Array, ...]
    codes: tuple[Array, ...]
    node_of: Array
    leaf_offsets: Array
    leaf_items: Array
    log_shares: Array

    @classmethod
    def of(cls, codes: Array, sizes: tuple[int, ...] | None = None, popularity: Array | None = None) -> CodeTrie:
        """Build a trie from codes (N, L), N > 0.

        Args:
            codes: (N, L) integers, ``0 ≤ codes[:, l] < sizes[l]``.
            sizes: number of codes per level; by default one more than the largest code.
            popularity: (N,) popularity of each item, by which the items of a leaf are ordered: at least 0, or −1 for an
                item whose share is 0. Ties go to the smaller item id. By default, all items are equally popular.

        Raises:
            InputError: there are no items, or a code is out of range for its level.
        """
        codes = checked(codes, sizes)
        count, levels = codes.shape
        sizes = tuple(int(most) + 1 for most in codes.max(axis=0)) if sizes is None else tuple(sizes)
        weight = np.zeros(count) if popularity is None else np.asarray(popularity, np.float64)
        order = np.lexsort((np.arange(count), -weight, *codes.T[::-1]))
        ordered = codes[order]
        fresh = np.ones((count, levels), bool)
        fresh[1:] = np.logical_or.accumulate(ordered[1:] != ordered[:-1], axis=1)
        place = np.concatenate([np.zeros((1, count), np.int64), np.cumsum(fresh, axis=0).T - 1])
        offsets, reached = [], []
        for level in range(levels):
            new = fresh[:, level]
            offsets.append(np.searchsorted(place[level][new], np.arange(place[level, -1] + 2)))
            reached.append(ordered[new, level])
        node_of = np.empty_like(place)
        node_of[:, order] = place
        leaves = place[-1, -1] + 1
        total = np.log(np.maximum(np.bincount(node_of[-1], weights=weight + 1, minlength=leaves), 1e-300))
        with np.errstate(divide="ignore"):
            share = np.log(weight + 1)
        return cls(
            sizes,
            tuple(offsets),
            tuple(reached),
            node_of,
            np.searchsorted(place[-1], np.arange(leaves + 1)),
            order,
            share - total[node_of[-1]],
        )

    @property
    def levels(self) -> int:
        """Number of levels L."""
        return len(self.sizes)

    @property
    def n_items(self) -> int:
        """Number of items N."""
        return self.node_of.shape[1]

    def width(self, level: int) -> int:
        """Return the number of nodes of a level."""
        return 1 if level == 0 else len(self.codes[level - 1])

    def children(self, level: int, nodes: Array) -> tuple[Array, Array, Array]:
        """Return the C children of the nodes (R,) of a level, in the order of ``nodes``: the position of the parent in
        ``nodes``, the code, and the node of each child, each (C,)."""
        return _ranges(self.offsets[level], nodes, self.codes[level])

    def items(self, leaves: Array) -> tuple[Array, Array]:
        """Return the C items of leaves (R,), most popular items of a leaf first: the position of the item's leaf in
        ``leaves``, and the item, each (C,)."""
        place, items, _ = _ranges(self.leaf_offsets, leaves, self.leaf_items)
        return place, items

    def find(self, codes: Array) -> Array:
        """Return the nodes (R,) of code prefixes (R, l); −1 for a prefix that no item has."""
        nodes = np.zeros(len(codes), np.int64)
        for level, code in enumerate(np.asarray(codes, np.int64).T):
            size, owner = self.sizes[level], np.repeat(np.arange(self.width(level)), np.diff(self.offsets[level]))
            keys, wanted = owner * size + self.codes[level], nodes * size + code
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            nodes = np.where((nodes >= 0) & (code >= 0) & (code < size) & (keys[at] == wanted), at, -1)
        return nodes


class LiveTrie:
    """Part of a trie that leads to available items. It is updated when items become available or unavailable.

    Attributes:
        trie: trie of the codes of all items.
        available: (N,) bool, True for available items.
        counts: L + 1 arrays (n_l,) with the number of available items under each node of level l.
    """

    def __init__(self, trie: CodeTrie, available: Array | None = None) -> None:
        self.trie = trie
        self.available = np.zeros(trie.n_items, bool)
        self.counts = [np.zeros(trie.width(level), np.int64) for level in range(trie.levels + 1)]
        self.set(np.arange(trie.n_items), True if available is None else available)

    def set(self, items: Array, available: ArrayLike) -> None:
        """Set the availability of distinct items (C,) to values (C,), or to one value for all of them. The cost per
        changed item is one update on each level."""
        items = np.asarray(items, np.int64)
        wanted = np.broadcast_to(np.asarray(available, bool), items.shape)
        changed = self.available[items] != wanted
        items, wanted = items[changed], wanted[changed]
        self.available[items] = wanted
        for nodes, counts in zip(self.trie.node_of, self.counts):
            np.add.at(counts, nodes[items], np.where(wanted, 1, -1))

    def moved(self, available: Array) -> LiveTrie:
        """Return a live trie with the given availability (N,) bool of all items. If the availability is unchanged, this
        is the same object; otherwise it is a copy, and this object does not change."""
        changed = np.flatnonzero(self.available != available)
        if not len(changed):
            return self
        other = copy(self)
        other.available, other.counts = self.available.copy(), [counts.copy() for counts in self.counts]
        other.set(changed, available[changed])
        return other

    def without(self, rows: Array, items: Array) -> PrunedTrie:
        """Return the part of the trie that each of several requests may reach. The item ``items[h]`` is hidden from the
        request ``rows[h]``; both arrays are (H,)."""
        return PrunedTrie(self, np.asarray(rows, np.int64), np.asarray(items, np.int64))


class PrunedTrie:
    """Part of a live trie that each of several requests may reach: the nodes with at least one item that is available
    and not hidden from the request.

    Nodes whose available items are all hidden from a request are determined on construction. The number of available
    items is read from the live trie at each call. Therefore, do not change the live trie while this object is in use.
    """

    def __init__(self, live: LiveTrie, rows: Array, items: Array) -> None:
        self.live, self.trie = live, live.trie
        self._hidden = np.unique(rows * self.trie.n_items + items)
        rows, items = np.divmod(self._hidden, self.trie.n_items)
        shown = live.available[items]
        rows, items = rows[shown], items[shown]
        self._dead = []
        for level, nodes in enumerate(self.trie.node_of):
            keys, counts = np.unique(rows * self.trie.width(level) + nodes[items], return_counts=True)
            self._dead.append(keys[counts == live.counts[level][keys % self.trie.width(level)]])

    def children(self, level: int, rows: Array, nodes: Array) -> tuple[Array, Array, Array]:
        """Return the permitted children of the nodes (R,) that the requests ``rows`` (R,) have reached: the position of
        the parent in ``nodes``, the code, and the node of each child, each (C,)."""
        place, codes, found = self.trie.children(level, nodes)
        kept = self.live.counts[level + 1][found] > 0
        kept &= ~_among(self._dead[level + 1], rows[place] * self.trie.width(level + 1) + found)
        return place[kept], codes[kept], found[kept]

    def items(self, rows: Array, leaves: Array) -> tuple[Array, Array]:
        """Return the permitted items of the leaves (R,) that the requests ``rows`` (R,) have reached, most popular
        items of a leaf first: the position of the item's leaf in ``leaves``, and the item, each (C,)."""
        place, items = self.trie.items(leaves)
        kept = self.live.available[items] & ~_among(self._hidden, rows[place] * self.trie.n_items + items)
        return place[kept], items[kept]


def checked(codes: Array, sizes: tuple[int, ...] | None = None) -> Array:
    """Return the codes (N, L) as int64, after checking them.

    Raises:
        InputError: the codes are not a non-empty matrix of integers, have a different number of levels than ``sizes``,
            or contain a code that is out of range for its level.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or not codes.size or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            "The item codes are not a matrix of integers.",
            where="codes",
            expected="shape (items, levels), int, at least one item and one level",
            found=f"shape {codes.shape}, {codes.dtype}",
        )
    bounds = np.full(codes.shape[1], np.iinfo(np.int64).max) if sizes is None else np.asarray(sizes)
    if len(bounds) != codes.shape[1]:
        raise InputError(
            "The item codes and the sizes have different numbers of levels.",
            where="codes",
            expected=f"{len(bounds)} levels",
            found=f"{codes.shape[1]}",
        )
    outside = (codes < 0) | (codes >= bounds)
    if outside.any():
        item, level = np.argwhere(outside)[0]
        raise InputError(
            "An item code is out of range for its level.",
            where=f"item {item}, level {level}",
            expected=f"0 to {bounds[level] - 1}",
            found=str(codes[item, level]),
        )
    return codes.astype(np.int64)


def _ranges(offsets: Array, nodes: Array, values: Array) -> tuple[Array, Array, Array]:
    """Concatenate the ranges of ``values`` that belong to the given nodes. Return for each value the position of its
    node in ``nodes``, the value, and the position of the value in ``values``."""
    starts = offsets[nodes]
    place, step = rows_and_places(offsets[nodes + 1] - starts)
    found = starts[place] + step
    return place, values[found], found


def _among(keys: Array, wanted: Array) -> Array:
    """Return a mask of the ``wanted`` values that occur in the sorted ``keys``."""
    if not len(keys):
        return np.zeros(len(wanted), bool)
    return np.asarray(keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted)
