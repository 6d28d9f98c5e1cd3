"""Quality of item codes: collisions, utilisation, entropy, and agreement of two encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def code_groups(codes: Array) -> Array:
    """Return a group index (N,) for each row of codes (N, L). Equal rows have the same index. Indices start at 0 and
    follow the lexicographic order of the codes."""
    if not len(codes):
        return np.zeros(0, np.int64)
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def sharing(codes: Array) -> Array:
    """Return the number (N,) of items with the same codes as each item, including the item itself."""
    groups = code_groups(codes)
    return np.bincount(groups)[groups] if len(groups) else groups


def collisions_by_item(codes: Array) -> float:
    """Return the share of items that have the same codes as another item."""
    return float((sharing(codes) > 1).mean()) if len(codes) else 0.0


def surplus_items(codes: Array) -> float:
    """Return 1 − (number of distinct codes) / (number of items): the share of items that would have to be removed for
    all codes to be distinct."""
    return 1.0 - (int(code_groups(codes).max()) + 1) / len(codes) if len(codes) else 0.0


def collisions_by_target(codes: Array, targets: Array) -> float:
    """Return the share of targets (T,), given as dense item ids, that have the same codes as another item.

    Unlike :func:`collisions_by_item`, this weights each item by how often it is a target, because popular items may
    collide more or less often than others.
    """
    return float((sharing(codes)[targets] > 1).mean()) if len(targets) else 0.0


def hit_bound(codes: Array, targets: Array, popularity: Array, k: int = 1) -> float:
    """Return an upper bound of the hit rate @ k: the hit rate if the codes are predicted perfectly and items with equal
    codes are ordered by popularity.

    The bound is the share of targets that are among the ``k`` most popular items with their codes. It is 1 for codes
    without collisions.

    Args:
        codes: (N, L) codes of items.
        targets: (T,) dense item ids.
        popularity: (N,) popularity in the training log; ties go to the lower item id.
        k: length of the recommended list.
    """
    if not len(targets):
        return 0.0
    groups = code_groups(codes)
    order = np.lexsort((np.arange(len(groups)), -np.asarray(popularity, np.float64), groups))
    starts = np.searchsorted(groups[order], np.arange(groups.max() + 1))
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - starts[groups[order]]
    return float((place[targets] < k).mean())


def utilisation(codes: Array, sizes: tuple[int, ...]) -> Array:
    """Return the share (L,) of each level's codes that at least one item has."""
    return np.asarray([len(np.unique(codes[:, level])) / size for level, size in enumerate(sizes)])


def entropies(codes: Array) -> Array:
    """Return the entropy (L,) of each level's codes over the items, in bits. It is at most log2 of the number of codes
    of the level."""
    out = []
    for column in codes.T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        out.append(float(-(share * np.log2(share)).sum()))
    return np.asarray(out)


def agreement(first: Array, second: Array) -> float:
    """Return the adjusted Rand index of two labellings (N,). It is 1 if both form the same groups, whatever the labels,
    and 0 on average for random labels."""
    count = len(first)
    pairs = count * (count - 1) / 2.0
    both = _pairs(np.stack([first, second], axis=1))
    ours, theirs = _pairs(np.asarray(first)[:, None]), _pairs(np.asarray(second)[:, None])
    by_chance = ours * theirs / pairs if pairs else 0.0
    most = (ours + theirs) / 2.0
    return 1.0 if most == by_chance else float((both - by_chance) / (most - by_chance))


def stability(first: Array, second: Array) -> Array:
    """Return the adjusted Rand index (L,) of two encodings (N, L) of the same items, for the groups of items with equal
    first 1, 2, … L codes.

    The numbering of the codes is ignored, so a refit that finds the same groups in a different order is stable.
    """
    levels = range(1, first.shape[1] + 1)
    return np.asarray([agreement(code_groups(first[:, :n]), code_groups(second[:, :n])) for n in levels])


def quality(codes: Array, sizes: tuple[int, ...]) -> dict[str, float]:
    """Return measures by name: the share of colliding items, the share of surplus items, the largest number of items
    with equal codes, and the utilisation and entropy of each level."""
    found = {
        "collisions": collisions_by_item(codes),
        "surplus": surplus_items(codes),
        "largest_group": float(sharing(codes).max(initial=0)),
    }
    used, bits = utilisation(codes, sizes), entropies(codes) if len(codes) else np.zeros(len(sizes))
    for level in range(len(sizes)):
        found |= {f"utilisation_{level + 1}": float(used[level]), f"entropy_{level + 1}": float(bits[level])}
    return found


def _pairs(labels: Array) -> float:
    """Return the number of pairs of equal rows of labels (N, C)."""
    counts = np.bincount(code_groups(labels)).astype(np.float64) if len(labels) else np.zeros(0)
    return float((counts * (counts - 1) / 2.0).sum())
