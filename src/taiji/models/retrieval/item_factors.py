"""Item factors: a truncated singular value decomposition of the user-item matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taiji.data.history import History
from taiji.models.retrieval.item_knn import interactions

Array = NDArray[Any]
OVERSAMPLING = 10
"""Number of directions of the subspace iteration beyond the requested number of factors."""
ITERATIONS = 3


def item_factors(history: History, count: int, width: int, seed: int = 0) -> Array:
    """Return item factors (count, width) float64: ``V S`` from the singular value decomposition ``U S Vᵀ`` of the
    normalised binary user-item matrix.

    The factors of an item without interactions are zero.

    Each entry of the matrix is divided by √(n_u n_i), where n_u and n_i count the distinct items of the user and the
    distinct users of the item. Thus, neither busy users nor popular items dominate the factors. The decomposition uses
    randomised subspace iteration (Halko et al., SIAM Review 2011).

    Args:
        history: interactions.
        count: number of items in the catalogue.
        width: number of factors; factors beyond the rank of the matrix are zero.
        seed: random seed of the initial subspace.
    """
    matrix = interactions(history, count)
    offsets, items = matrix.crow_indices(), matrix.col_indices()
    per_user = torch.diff(offsets)
    per_item = torch.bincount(items, minlength=count)
    rows = torch.repeat_interleave(torch.arange(history.n_users), per_user)
    values = 1.0 / torch.sqrt(per_user[rows].double() * per_item[items].double())
    taken = torch.sparse_coo_tensor(
        torch.stack([rows, items]), values, (history.n_users, count), is_coalesced=True, check_invariants=True
    ).to_sparse_csr()
    mirrored = taken.to_sparse_coo().t().coalesce().to_sparse_csr()
    rank = min(width + OVERSAMPLING, count, history.n_users)
    start = torch.from_numpy(np.random.default_rng(seed).standard_normal((history.n_users, rank)))
    basis = torch.linalg.qr(start).Q
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(taken @ torch.linalg.qr(mirrored @ basis).Q).Q
    found = torch.linalg.svd(mirrored @ basis, full_matrices=False)
    factors = (found.U * found.S).numpy()[:, :width]
    out = np.zeros((count, width))
    out[:, : factors.shape[1]] = factors
    # The sign of a singular vector is arbitrary, so its largest entry is made positive.
    largest = np.abs(out).argmax(axis=0)
    return out * np.where(out[largest, np.arange(width)] < 0, -1.0, 1.0)
