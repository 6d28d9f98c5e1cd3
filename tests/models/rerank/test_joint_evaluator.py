"""Equivariances in float64, the contracts, what it learns that pointwise scores cannot, and the cost."""

import numpy as np
import pytest

from taiji.core.component import Requests, Slate
from taiji.core.errors import ArtifactError, InputError
from taiji.models.rerank.joint_evaluator import (
    HISTORY,
    BestOfLists,
    JointEvaluator,
    JointEvaluatorSettings,
    JudgedLists,
    multiply_adds,
    saved_best_of_lists,
)
from taiji.models.rerank.list_generators import HeadPermutations, SampledLists
from taiji.testing import check_component, check_deterministic, check_list_evaluator, check_reranker, checkerboard

VECTORS = np.random.default_rng(0).normal(size=(30, 4))
SETTINGS = JointEvaluatorSettings(width=8, length=6, epochs=2)


def judged(seed=0, requests=40, lists=6):
    """Return lists whose worth is a discounted sum of scores less what neighbours have in common."""
    random = np.random.default_rng(seed)
    items = np.stack([random.permutation(30)[:8] for _ in range(requests)])
    scores = random.random(items.shape)
    places = np.stack([[random.permutation(8)[:4] for _ in range(lists)] for _ in range(requests)])
    rows = np.arange(requests)[:, None, None]
    unit = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True))[items[rows, places]]
    near = (unit[:, :, 1:] * unit[:, :, :-1]).sum(axis=-1).sum(axis=-1)
    worth = (scores[rows, places] * np.array([1, 0.6, 0.4, 0.3])).sum(axis=-1) - 0.5 * near
    history = random.integers(-1, 30, (requests, 5))
    return JudgedLists(
        Requests(np.arange(requests), np.arange(requests), {HISTORY: history}), Slate(items, scores), places, worth
    )


@pytest.fixture(scope="module", params=[True, False], ids=["across", "alone"])
def fitted(request):
    return JointEvaluator(SETTINGS.model_copy(update={"across": request.param}), VECTORS).fit(judged())


def test_contracts(fitted):
    check_list_evaluator(fitted, across_lists=fitted.settings.across, tolerance=1e-12)
    rows = judged(1, requests=4)
    check_component(fitted, checkerboard(), lambda made: made.score(rows.requests, rows.slate, rows.lists))


def test_order_of_candidates_does_not_matter_and_equal_lists_are_equal(fitted):
    rows, random = judged(2, requests=5), np.random.default_rng(3)
    scores = fitted.score(rows.requests, rows.slate, rows.lists)
    order = np.argsort(random.random(rows.slate.items.shape), axis=1)
    back = np.argsort(order, axis=1)
    moved = np.take_along_axis(back[:, None], rows.lists.reshape(5, 1, -1), axis=2).reshape(rows.lists.shape)
    np.testing.assert_allclose(fitted.score(rows.requests, rows.slate.take(order), moved), scores, rtol=0, atol=1e-12)
    twice = fitted.score(rows.requests, rows.slate, rows.lists[:, [0, 1, 2, 1]])
    np.testing.assert_allclose(twice[:, 1], twice[:, 3], rtol=0, atol=1e-13)
    padded = Slate(
        np.pad(rows.slate.items, ((0, 0), (0, 3)), constant_values=-1), np.pad(rows.slate.scores, ((0, 0), (0, 3)))
    )
    np.testing.assert_allclose(fitted.score(rows.requests, padded, rows.lists), scores, rtol=0, atol=1e-12)


def test_other_lists_count_where_attention_crosses_lists_alone(fitted):
    rows = judged(4, requests=5)
    scores = fitted.score(rows.requests, rows.slate, rows.lists)
    alone = fitted.score(rows.requests, rows.slate, rows.lists[:, :1])
    assert (np.abs(alone - scores[:, :1]).max() > 1e-6) == fitted.settings.across


def test_one_logged_list_is_rejected():
    rows = judged(requests=3, lists=1)
    with pytest.raises(InputError, match="single list"):
        JointEvaluator(SETTINGS, VECTORS).fit(rows)
    with pytest.raises(InputError, match="longer"):
        JointEvaluator(SETTINGS, VECTORS).fit(judged(requests=4)).score(
            rows.requests, rows.slate, np.tile(np.arange(7), (3, 2, 1))
        )


def test_learns_what_stands_beside_what():
    settings = SETTINGS.model_copy(update={"epochs": 15, "batch": 16, "rate": 0.01})
    evaluator = JointEvaluator(settings, VECTORS).fit(judged(5, requests=128))
    rows = judged(6, requests=100)
    found = evaluator.score(rows.requests, rows.slate, rows.lists)
    pick = rows.rewards[np.arange(100), found.argmax(axis=1)].mean()
    sums = rows.slate.scores[np.arange(100)[:, None, None], rows.lists] @ np.array([1, 0.6, 0.4, 0.3])
    by_scores = rows.rewards[np.arange(100), sums.argmax(axis=1)].mean()
    best = rows.rewards.max(axis=1).mean()
    assert by_scores < pick <= best


def test_reranker_and_determinism():
    evaluator = JointEvaluator(SETTINGS, VECTORS).fit(judged())
    for length in (1, 4, 6):
        check_reranker(BestOfLists(SampledLists(VECTORS), evaluator, 6), length=length)
    check_reranker(BestOfLists(HeadPermutations(3), evaluator, 6), length=4)
    check_deterministic(lambda seed: JointEvaluator(SETTINGS, VECTORS).fit(judged(requests=8), seed=seed))


def test_a_saved_evaluator_is_the_one_that_is_named(tmp_path):
    evaluator = JointEvaluator(SETTINGS, VECTORS).fit(judged(requests=8))
    evaluator.save(tmp_path / "evaluator")
    folder = str(tmp_path / "evaluator")
    check_reranker(saved_best_of_lists(VECTORS, folder=folder, version=evaluator.version, lists=6), length=4)
    for version, vectors in (("another", VECTORS), (evaluator.version, VECTORS + 1)):
        with pytest.raises(ArtifactError, match="has a different version"):
            saved_best_of_lists(vectors, folder=folder, version=version)


def test_cost_crosses_near_candidates_over_length():
    def ratio(lists):
        sizes = {"candidates": 60, "length": 6, "history": 1000, "width": 64}
        return multiply_adds(lists, joint=False, **sizes) / multiply_adds(lists, joint=True, **sizes)

    assert ratio(1) < 0.2 < 0.8 < ratio(10) < 1.1 and ratio(20) > 1.3 and ratio(50) > 3 and ratio(200) > 5
    assert ratio(10_000) < ratio(500)
