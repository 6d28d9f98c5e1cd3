"""Dependence of a score on a confounder such as video length, and the share of item pairs whose order a correction
keeps (among pairs with about the same value of the confounder)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.metrics.concordance import grouped_concordance

Array = NDArray[Any]


def mutual_information(scores: Array, circumstance: Array, bins: int = 16) -> float:
    """Return the mutual information, in nats, of scores and a confounder (``circumstance``), (n,) each.

    Both are cut into ``bins`` groups of about equal size. The value is the plug-in estimate minus its bias (Miller and
    Madow 1955), so for independent columns it varies around 0 and may be negative.

    Raises:
        InputError: fewer than two rows.
    """
    if len(scores) < 2:
        raise InputError("Measuring dependence needs at least two rows.", where="scores", found=str(len(scores)))
    first, second = _groups(scores, bins), _groups(circumstance, bins)
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1.0)
    n = joint.sum()
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True) / n
    there = joint > 0
    plain = float((joint[there] * np.log(joint[there] / expected[there])).sum() / n)
    # Entropies are underestimated by (cells − 1) / 2n each; I = H(X) + H(Y) − H(X, Y).
    return plain + float((joint.shape[0] - 1) + (joint.shape[1] - 1) - (there.sum() - 1)) / (2 * n)


def order_kept(before: Array, after: Array, circumstance: Array, bins: int = 16) -> float:
    """Return the share of pairs with different scores ``before`` that ``after`` puts in the same order; ties count one
    half.

    Pairs are formed within groups of rows with about equal confounder (``circumstance``). The result is the mean over
    groups, weighted by their numbers of rows.

    Args:
        before, after: (n,) scores.
        circumstance: confounder (n,), cut into ``bins`` groups of equal size; with at most ``bins`` distinct values,
            each value is a group.
    """
    groups = _groups(circumstance, bins)
    found = grouped_concordance(groups, before, after, int(groups.max()) + 1)
    counts = np.bincount(groups)
    known = np.isfinite(found)
    return float(np.average(found[known], weights=counts[known])) if known.any() else float("nan")


def _groups(values: Array, bins: int) -> Array:
    """Return (n,) codes 0, 1, … of groups of about equal size; one group per value if there are at most ``bins``
    values."""
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= bins:
        return np.asarray(codes)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]
