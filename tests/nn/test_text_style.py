"""Style and length of texts."""

from __future__ import annotations

import numpy as np

from taiji.nn.text_style import STYLE_FEATURES, length_features, phrase_features, shared_phrases, style_features


def test_style_counts_marks_and_address_and_not_the_length():
    found = style_features(["Do you know it? Yes, 42!", "plain words", ""])
    row = dict(zip(STYLE_FEATURES, found[0]))
    assert (row["question"], row["exclamation"], row["you"]) == (1, 1, 1)
    assert row["digits"] == 2 / 5 and row["capitals"] == 2 / 5
    assert not found[2].any() and found[1][:5].sum() == 0
    doubled = style_features(["quiet small words", "quiet small words quiet small words"])
    np.testing.assert_allclose(doubled[0], doubled[1])


def test_length_is_the_logarithm_of_words_and_its_square():
    np.testing.assert_allclose(length_features(["", "two words"]), [[0, 0], [np.log(3), np.log(3) ** 2]])
    assert style_features([]).shape == (0, len(STYLE_FEATURES)) and length_features([]).shape == (0, 2)


def test_phrases_are_what_the_texts_of_many_groups_share():
    texts = [(f"See inside the {word}!", group) for word, group in zip("abcde", "12345")] + [("red red lamp", "1")] * 9
    found = shared_phrases(texts)
    assert set(found) == {"see", "inside", "the", "see inside", "inside the"}
    np.testing.assert_array_equal(phrase_features(["Do see inside", ""], ["see inside", "lamp"]), [[1, 0], [0, 0]])
