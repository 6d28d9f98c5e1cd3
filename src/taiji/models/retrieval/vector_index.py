"""Search for nearest vectors by inner product. The search is exhaustive for few vectors, and uses inverted lists for
many. Vectors can be added and removed."""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
FAISS: Any = faiss
"""Untyped alias of faiss, whose type hints lack members that it loads at run time."""
EXACT_BELOW = 20_000
"""Largest number of vectors for which the search is exhaustive."""
TRAINING = 64
"""Largest number of training vectors per list from which the centres of the lists are computed."""


class VectorIndex:
    """Index of vectors with ids that the caller chooses.

    Above ``exact_below`` vectors, the n vectors are divided into √n inverted lists (Sivic & Zisserman, 2003; IVF-Flat
    in faiss), and a query searches only the share ``probes`` of lists with the nearest centres. Scores stay exact, but
    some neighbours may be missed. The lists are rebuilt whenever the number of vectors has grown fourfold since they
    were last built.

    Args:
        width: width of the vectors.
        exact_below: largest number of vectors for which the search is exhaustive.
        probes: share of the lists that are searched; a larger share finds more neighbours and takes longer.
        seed: random seed of the centres of the lists.
    """

    def __init__(self, width: int, *, exact_below: int = EXACT_BELOW, probes: float = 0.05, seed: int = 0) -> None:
        self.width, self.exact_below, self.probes, self.seed = width, exact_below, probes, seed
        self._trained_on = 0
        # Ascending ids, kept separately because the index returns ids only together with all vectors.
        self._ids: Array = np.zeros(0, np.int64)
        self._index: Any = FAISS.IndexIDMap2(FAISS.IndexFlatIP(width))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def exact(self) -> bool:
        """True if the search is exhaustive."""
        return not self._trained_on

    @property
    def ids(self) -> Array:
        """Ids in the index (n,), ascending."""
        return self._ids.copy()

    def held(self) -> tuple[Array, Array]:
        """Return all ids (n,), ascending, and their vectors (n, width)."""
        if self.exact:
            ids = np.array(FAISS.vector_to_array(self._index.id_map), dtype=np.int64)
            flat = FAISS.downcast_index(self._index.index).get_xb()
            vectors = np.array(FAISS.rev_swig_ptr(flat, len(ids) * self.width) if len(ids) else (), dtype=np.float32)
        else:
            lists, sizes = self._index.invlists, range(self._index.nlist)
            filled = [(number, lists.list_size(number)) for number in sizes if lists.list_size(number)]
            ids = np.concatenate([np.zeros(0, np.int64), *(FAISS.rev_swig_ptr(lists.get_ids(n), m) for n, m in filled)])
            codes = [FAISS.rev_swig_ptr(lists.get_codes(n), m * self.width * 4) for n, m in filled]
            vectors = np.concatenate([np.zeros(0, np.uint8), *codes]).view(np.float32)
        order = np.argsort(ids)
        return ids[order], vectors.reshape(-1, self.width)[order]

    def add(self, ids: Array, vectors: Array) -> None:
        """Add vectors (n, width) under ids (n,).

        Raises:
            InputError: the shapes are wrong, a value is not finite, an id is repeated, or an id is already in the
                index.
        """
        ids, vectors = np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (len(ids), self.width) or not np.isfinite(vectors).all():
            raise InputError(
                "The vectors do not match the index.",
                expected=f"finite values of shape ({len(ids)}, {self.width})",
                found=f"shape {vectors.shape}",
            )
        new = np.unique(ids)
        if len(new) < len(ids):
            raise InputError("An id is given twice.", where="ids", expected="one vector per id")
        place = np.searchsorted(self._ids, new)
        inside = np.flatnonzero(place < len(self._ids))
        if len(known := new[inside[self._ids[place[inside]] == new[inside]]]):
            raise InputError(
                "An id is in the index already.",
                where="ids",
                expected="new ids",
                found=f"{len(known)} ids that are in the index, such as {known[0]}",
                fix="remove an id before you add it with another vector",
            )
        if len(ids):
            self._index.add_with_ids(vectors, ids)
            self._ids = np.insert(self._ids, place, new)
        if len(self) > self.exact_below and len(self) >= 4 * self._trained_on:
            self._learn_lists()

    def remove(self, ids: Array) -> int:
        """Remove vectors by id, and return the number of vectors removed. Unknown ids are ignored."""
        wanted = np.ascontiguousarray(ids, np.int64)
        if not len(wanted):
            return 0
        self._ids = np.setdiff1d(self._ids, wanted)
        return int(self._index.remove_ids(wanted))

    def search(self, queries: Array, k: int, allowed: Array | None = None) -> tuple[Array, Array]:
        """Return the ``k`` nearest vectors of each query.

        Args:
            queries: (B, width) query vectors.
            k: number of neighbours per query.
            allowed: ids (n,) to which the search is restricted; by default, all ids are searched.

        Returns:
            ids (B, k) int64, padded with −1, and inner products (B, k) float32, padded with −inf. Neighbours with
            equal products are sorted by id.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if not len(queries) or not k:
            return np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        selector = None if allowed is None else FAISS.IDSelectorBatch(np.ascontiguousarray(allowed, np.int64))
        if self.exact:
            parameters = FAISS.SearchParameters(sel=selector) if selector is not None else None
        else:
            parameters = FAISS.SearchParametersIVF(sel=selector, nprobe=self._probed())
        scores, ids = self._index.search(queries, k, params=parameters)
        scores = np.where(ids >= 0, scores, -np.inf)
        order = np.lexsort((ids, -scores), axis=1)
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def recall(self, queries: Array, k: int) -> float:
        """Return the share of the true ``k`` nearest vectors of the queries (B, width) that :meth:`search` finds."""
        if self.exact:
            return 1.0
        found, _ = self.search(queries, k)
        exact = FAISS.SearchParametersIVF(nprobe=self._index.nlist)
        _, right = self._index.search(np.ascontiguousarray(queries, np.float32), k, params=exact)
        same = (found[:, :, None] == right[:, None, :]) & (right >= 0)[:, None, :]
        return float(same.any(axis=1).sum() / max((right >= 0).sum(), 1))

    def _probed(self) -> int:
        return max(1, math.ceil(self.probes * self._index.nlist))

    def _learn_lists(self) -> None:
        ids, vectors = self.held()
        lists = max(1, round(math.sqrt(len(ids))))
        sample = np.random.default_rng(self.seed).permutation(len(ids))[: TRAINING * lists]
        centres = FAISS.Kmeans(self.width, lists, niter=10, seed=self.seed, spherical=True, min_points_per_centroid=1)
        centres.train(vectors[np.sort(sample)])
        quantiser = FAISS.IndexFlatIP(self.width)
        quantiser.add(centres.centroids)
        index = FAISS.IndexIVFFlat(quantiser, self.width, lists, FAISS.METRIC_INNER_PRODUCT)
        index.add_with_ids(vectors, ids)
        self._quantiser, self._index, self._trained_on = (
            quantiser,
            index,
            len(ids),
        )  # keeps the quantiser alive, because the index holds only a reference to it
