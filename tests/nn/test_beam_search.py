"""Against scoring every leaf: equal where the beam holds the catalogue, and step by step where it does not."""

import numpy as np
import torch

from taiji.nn.beam_search import beam_search

SIZES = (4, 3, 5)
RANDOM = np.random.default_rng(0)
LEAVES = RANDOM.random(SIZES) < 0.5
LEVELS = [LEAVES.any(axis=(1, 2)), LEAVES.any(axis=2), LEAVES]
B = 3


def tables(seed: int = 0, digits: int = 9) -> list[torch.Tensor]:
    """Return scores of each request's next code after every prefix: (B, 4), (B, 4, 3), (B, 4, 3, 5)."""
    random = np.random.default_rng(seed)
    return [torch.from_numpy(random.standard_normal((B, *SIZES[: n + 1])).round(digits)) for n in range(3)]


def search(scores: list[torch.Tensor], beam: int, hidden: np.ndarray | None = None):
    """Run the search; nodes are numbered by their prefix, and the callback keeps the prefixes as a cache would."""
    held: list[torch.Tensor] = []

    def score(level, parents, codes):
        if level:
            rows = torch.arange(B)[:, None]
            held[:] = [part[rows, parents] for part in held] + [codes]
        rows = torch.arange(B)[:, None].expand(parents.shape)
        return scores[level][(rows, *held)]

    def children(level, rows, nodes):
        prefix = np.unravel_index(nodes, SIZES[:level]) if level else ()
        there = LEVELS[level][tuple(prefix)] if level else np.repeat(LEVELS[0][None], len(rows), axis=0)
        if hidden is not None:
            there = there & ~hidden[rows][:, None]
        place, code = np.nonzero(there)
        return place, code, nodes[place] * SIZES[level] + code

    return beam_search(score, children, B, 3, beam)


def totals(scores: list[torch.Tensor]) -> np.ndarray:
    out = scores[0][:, :, None, None] + scores[1][..., None] + scores[2]
    return np.where(LEAVES, out.numpy(), -np.inf).reshape(B, -1)


def test_a_beam_of_the_catalogue_is_exhaustive():
    scores = tables()
    nodes, found = search(scores, beam=60)
    expected = totals(scores)
    order = np.argsort(-expected, axis=1, kind="stable")[:, : int(LEAVES.sum())]
    np.testing.assert_array_equal(nodes[:, : order.shape[1]].numpy(), order)
    np.testing.assert_allclose(found[:, : order.shape[1]].numpy(), np.take_along_axis(expected, order, axis=1))


def test_a_narrow_beam_keeps_the_best_prefixes():
    scores = tables(1)
    nodes, found = search(scores, beam=2)
    for row in range(B):
        beams = [((), 0.0)]
        for level in range(3):
            options = [
                ((*prefix, code), total + float(scores[level][(row, *prefix, code)]))
                for prefix, total in beams
                for code in range(SIZES[level])
                if LEVELS[level][(*prefix, code)]
            ]
            beams = sorted(options, key=lambda option: -option[1])[:2]
        assert nodes[row].tolist() == [np.ravel_multi_index(prefix, SIZES) for prefix, _ in beams]
        np.testing.assert_allclose(found[row].numpy(), [total for _, total in beams])


def test_of_equal_scores_the_first_comes_first():
    scores = [torch.zeros_like(table) for table in tables()]
    nodes, _ = search(scores, beam=4)
    assert nodes.tolist() == [np.flatnonzero(LEAVES)[:4].tolist()] * B


def test_an_empty_tree_gives_nothing():
    hidden = np.array([False, True, False])
    nodes, found = search(tables(), beam=5, hidden=hidden)
    alone, _ = search(tables(), beam=5)
    assert (nodes[1] == -1).all() and torch.isneginf(found[1]).all()
    np.testing.assert_array_equal(nodes[[0, 2]].numpy(), alone[[0, 2]].numpy())
    nodes, _ = search(tables(), beam=5, hidden=np.ones(3, bool))
    assert nodes.shape == (3, 0)
