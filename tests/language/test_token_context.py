import numpy as np
import pytest

from taiji.language.token_context import co_occurrences, context_vectors


def test_two_tokens_count_once_a_text_and_not_within_a_word():
    texts = [
        [[0, 1], [2]],  # 0 and 1 stand in one word
        [[0], [1], [0]],
        [[0, 1], [1]],  # 1 stands apart from 0, too
        [[3, -1]],
        [],
    ]
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 2
    expected[0, 2] = expected[2, 0] = expected[1, 2] = expected[2, 1] = 1
    np.testing.assert_array_equal(co_occurrences(texts, 4), expected)


def test_products_of_vectors_are_the_log_ratios():
    """Two kinds of words that are never mixed: with all axes of positive length, the products are the positive part of
    the ratios."""
    counts = np.kron(np.eye(2), np.full((3, 3), 8.0))
    np.fill_diagonal(counts, 0)
    totals = counts.sum(axis=1)
    ratios = np.log((counts + 1) / (np.outer(totals, totals) / totals.sum() + 1))
    np.fill_diagonal(ratios, 0)
    values, axes = np.linalg.eigh(ratios)
    vectors = context_vectors(counts, 6)
    positive = (axes * np.maximum(values, 0)) @ axes.T
    np.testing.assert_allclose(vectors @ vectors.T, positive, atol=1e-6)
    assert vectors[0] @ vectors[1] > 0 > vectors[0] @ vectors[3]
    np.testing.assert_array_equal(context_vectors(counts, 1)[:, 0], vectors[:, 0])


@pytest.mark.parametrize("tokens", [1, 3])
def test_tokens_that_never_stand_beside_others_have_no_vector(tokens):
    assert not context_vectors(np.zeros((tokens, tokens)), 2).any()


def test_only_frequent_tokens_get_a_vector(monkeypatch):
    monkeypatch.setattr("taiji.language.token_context.MOST", 2)
    counts = np.array([[0.0, 9, 1], [9, 0, 0], [1, 0, 0]])
    vectors = context_vectors(counts, 2)
    assert vectors[:2].any(axis=1).all() and not vectors[2].any()
