"""Quality of item codes: collisions, utilisation, entropy, and agreement of two encodings. All functions are pure
functions of arrays of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def code_groups(codes: Array) -> Array:
    """Return a group index (N,) for each row of codes (N, L). Equal rows have the same index; indices start at 0 and
    follow the order of the codes."""
    if not len(codes):
        return np.zeros(0, np.int64)
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def sharing(codes: Array) -> Array:
    """Return, for each item, the number of items with the same codes, including itself, (N,)."""
    groups = code_groups(codes)
    return np.bincount(groups)[groups] if len(groups) else groups


def collisions_by_item(codes: Array) -> float:
    """Return the share of items that have the same codes as another item."""
    return float((sharing(codes) > 1).mean()) if len(codes) else 0.0


def surplus_items(codes: Array) -> float:
    """Return 1 − distinct codes / items, the share of items in excess of the distinct codes."""
    return 1.0 - (int(code_groups(codes).max()) + 1) / len(codes) if len(codes) else 0.0


def collisions_by_target(codes: Array, targets: Array) -> float:
    """Return the share of targets (T,), given as dense item ids, that share their codes with another item.

    Unlike :func:`collisions_by_item`, this weights items by demand, because popular items may collide more or less
    often than others.
    """
    return float((sharing(codes)[targets] > 1).mean()) if len(targets) else 0.0


def hit_bound(codes: Array, targets: Array, popularity: Array, k: int = 1) -> float:
    """Return an upper bound of hit rate @ k: the value for perfectly predicted codes, with items of equal codes ordered
    by popularity.

    The bound is the share of targets among the first ``k`` items of their code. It is 1 for codes without collisions.

    Args:
        codes: (N, L) codes of items.
        targets: (T,) dense item ids.
        popularity: (N,) popularity in the training log; ties go to the lower item id.
        k: length of the list.
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
    """Return (L,): the share of each level's codes that at least one item has."""
    return np.asarray([len(np.unique(codes[:, level])) / size for level, size in enumerate(sizes)])


def entropies(codes: Array) -> Array:
    """Return (L,): the entropy over items of each level's codes, in bits, at most log2 of the size of the level."""
    out = []
    for column in codes.T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        out.append(float(-(share * np.log2(share)).sum()))
    return np.asarray(out)


def agreement(first: Array, second: Array) -> float:
    """Return the adjusted Rand index of two labellings (N,): 1 if both form the same groups, whatever the labels; 0 on
    average for random labels."""
    count = len(first)
    pairs = count * (count - 1) / 2.0
    both = _pairs(np.stack([first, second], axis=1))
    ours, theirs = _pairs(np.asarray(first)[:, None]), _pairs(np.asarray(second)[:, None])
    by_chance = ours * theirs / pairs if pairs else 0.0
    most = (ours + theirs) / 2.0
    return 1.0 if most == by_chance else float((both - by_chance) / (most - by_chance))


def stability(first: Array, second: Array) -> Array:
    """Return (L,): the agreement of two encodings (N, L) of the same items on the groups that their first 1, 2, …
    levels form.

    The numbering is ignored: a refit that finds the same groups in a different order is stable.
    """
    levels = range(1, first.shape[1] + 1)
    return np.asarray([agreement(code_groups(first[:, :n]), code_groups(second[:, :n])) for n in levels])


def quality(codes: Array, sizes: tuple[int, ...]) -> dict[str, float]:
    """Return the share of colliding items, the surplus items, the size of the largest group, and the utilisation and
    entropy of each level."""
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
