"""Checks of fusion, lists, re-ranking and policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from taiji.core.component import NO_ITEM, Fuser, ListEvaluator, ListGenerator, Policy, Requests, Reranker, Slate
from taiji.core.errors import InputError


def check_fuser(
    fuser: Fuser,
    tasks: Sequence[str],
    *,
    monotone: Mapping[str, int] | None = None,
    tolerance: float = 0.0,
    seed: int = 0,
) -> None:
    """Check a fuser's output shape, permutation equivariance, independence of padding, and declared monotonicity.

    Args:
        fuser: a fitted fuser.
        tasks: names of its input predictions, which lie in [0, 1].
        monotone: maps a task to +1 if the score must not decrease when its prediction increases, and to −1 if the score
            must not increase.
        tolerance: allowed difference between scores of permuted candidates.
        seed: seed of the predictions.
    """
    random = np.random.default_rng(seed)
    requests = Requests(np.arange(6), np.arange(6))
    predictions = {task: random.random((6, 9)) for task in tasks}
    scores = fuser.fuse(predictions, requests)
    assert scores.shape == (6, 9) and np.isfinite(scores).all(), f"scores of shape {scores.shape}, or not finite"
    order = np.argsort(random.random((6, 9)), axis=1)
    permuted = fuser.fuse({task: np.take_along_axis(v, order, axis=1) for task, v in predictions.items()}, requests)
    np.testing.assert_allclose(
        permuted, np.take_along_axis(scores, order, axis=1), rtol=0, atol=tolerance, err_msg="permuted candidates"
    )
    padded = {task: np.pad(v, ((0, 0), (0, 2)), constant_values=np.nan) for task, v in predictions.items()}
    wider = fuser.fuse(padded, requests)
    np.testing.assert_allclose(wider[:, :9], scores, rtol=0, atol=tolerance, err_msg="with more padding")
    for task, direction in (monotone or {}).items():
        for step in (1e-6, 1e-3, 0.3):
            raised = predictions | {task: np.minimum(predictions[task] + step, 1.0)}
            change = direction * (fuser.fuse(raised, requests) - scores)
            assert (change >= 0).all(), f"{task}: the score moves against its declared direction by {-change.min():.3g}"


def check_generator(generator: ListGenerator, *, lists: int = 4, length: int = 3, seed: int = 0) -> None:
    """Check that each proposed list contains only candidates, each at most once, and is the same in repeated calls and
    with more padding.

    Args:
        generator: a fitted generator.
        lists, length: number and length of the lists.
        seed: seed of the candidates.
    """
    requests, slate = _candidates(seed)
    proposed = generator.propose(requests, slate, lists, length)
    assert proposed.shape == (len(requests), lists, length), f"lists of shape {proposed.shape}"
    for row in range(len(requests)):
        _check_places(proposed[row].reshape(-1, length), slate.items[row], f"request {row}")
    np.testing.assert_array_equal(
        generator.propose(requests, slate, lists, length), proposed, "different lists on the second call"
    )
    np.testing.assert_array_equal(
        generator.propose(requests, _padded(slate), lists, length), proposed, "different lists with more padding"
    )


def check_list_evaluator(
    evaluator: ListEvaluator, *, across_lists: bool = True, tolerance: float = 1e-6, seed: int = 0
) -> None:
    """Check that each score belongs to its list: permuting the lists permutes the scores, and padding changes none.

    Args:
        evaluator: a fitted evaluator.
        across_lists: True if a list's score may depend on the other lists of the request.
        tolerance: allowed difference of scores.
        seed: seed of candidates and lists.
    """
    requests, slate = _candidates(seed)
    random = np.random.default_rng(seed + 1)
    lists = np.stack([[random.permutation(6)[:3] for _ in range(5)] for _ in range(len(requests))])
    scores = evaluator.score(requests, slate, lists)
    assert scores.shape == lists.shape[:2] and np.isfinite(scores).all(), (
        f"scores of shape {scores.shape}, or not finite"
    )
    order = random.permutation(5)
    np.testing.assert_allclose(
        evaluator.score(requests, slate, lists[:, order]),
        scores[:, order],
        rtol=0,
        atol=tolerance,
        err_msg="permuted lists",
    )
    padded = evaluator.score(requests, _padded(slate), lists)
    np.testing.assert_allclose(padded, scores, rtol=0, atol=tolerance, err_msg="with more padding")
    if not across_lists:
        alone = np.concatenate([evaluator.score(requests, slate, lists[:, k : k + 1]) for k in range(5)], axis=1)
        np.testing.assert_allclose(alone, scores, rtol=0, atol=tolerance, err_msg="lists one by one")


def check_reranker(reranker: Reranker, *, length: int = 4, seed: int = 0) -> None:
    """Check that a list contains ``length`` different candidates, or all candidates if there are fewer, and does not
    depend on padding.

    Args:
        reranker: a fitted re-ranker.
        length: length of the list.
        seed: seed of the candidates.
    """
    requests, slate = _candidates(seed)
    shown = reranker.rerank(requests, slate, length)
    for row, (items, candidates) in enumerate(zip(shown.items, slate.items)):
        there = items[items != NO_ITEM]
        known = candidates[candidates != NO_ITEM]
        assert len(np.unique(there)) == len(there), f"request {row}: an item twice"
        assert np.isin(there, known).all(), f"request {row}: an item that was not a candidate"
        assert len(there) == min(length, len(known)), f"request {row}: {len(there)} items of {len(known)} candidates"
    np.testing.assert_array_equal(
        reranker.rerank(requests, slate, length).items, shown.items, "a different list on the second call"
    )
    width = shown.items.shape[1]
    wider = reranker.rerank(requests, _padded(slate), length).items
    np.testing.assert_array_equal(wider[:, :width], shown.items, "a different list with more padding")
    short = Slate(slate.items[:, :3], None if slate.scores is None else slate.scores[:, :3])
    few, more = (reranker.rerank(requests, part, length).items for part in (short, _padded(short)))
    np.testing.assert_array_equal(more[:, : few.shape[1]], few, "few candidates: a different list with more padding")


def check_policy(policy: Policy, observation: np.ndarray, outside: np.ndarray) -> None:
    """Check that a policy acts the same in repeated calls, and raises InputError for an impossible observation.

    Args:
        policy: a trained policy.
        observation: an observation of its world.
        outside: an observation of a shape or range that never occurs in the world.
    """
    first = policy.act(observation)
    np.testing.assert_array_equal(policy.act(observation), first, "a different action on the second call")
    try:
        policy.act(outside)
    except InputError:
        return
    raise AssertionError("an impossible observation was accepted")


def _candidates(seed: int) -> tuple[Requests, Slate]:
    random = np.random.default_rng(seed)
    items = np.stack([random.permutation(30)[:8] for _ in range(5)])
    items[1, 6:] = NO_ITEM
    return Requests(np.arange(5), np.arange(5)), Slate(items, random.random((5, 8)))


def _padded(slate: Slate, by: int = 3) -> Slate:
    """Return the slate with more padding after its candidates."""
    assert slate.scores is not None
    more = ((0, 0), (0, by))
    return Slate(np.pad(slate.items, more, constant_values=NO_ITEM), np.pad(slate.scores, more, constant_values=np.nan))


def _check_places(lists: np.ndarray, candidates: np.ndarray, where: str) -> None:
    assert (lists >= 0).all() and (lists < len(candidates)).all(), f"{where}: positions outside the slate"
    assert (candidates[lists] != NO_ITEM).all(), f"{where}: an empty position was chosen"
    assert all(len(set(row.tolist())) == len(row) for row in lists), f"{where}: a candidate twice in one list"
