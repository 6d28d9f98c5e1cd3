from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.language.term_merges import (
    JOINT,
    UNKNOWN,
    TwoTokenizers,
    apply_merges,
    characters,
    learn_merges,
    merged,
)

SEQUENCES = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=8).map(tuple), st.integers(1, 4), max_size=6
)
TEXTS = st.text(alphabet="abcäÄßİ ._-1é中", max_size=30)


def counted_anew(sequences, most, least, joint):
    """Count all pairs after every merge."""
    merges = []
    texts = [(list(tokens), count) for tokens, count in sequences.items()]
    while len(merges) < most:
        counts = Counter()
        for tokens, count in texts:
            for pair in pairwise(tokens):
                counts[pair] += count
        counts = {pair: count for pair, count in counts.items() if count >= least}
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        texts = [(merged(tokens, best, joint), count) for tokens, count in texts]
    return tuple(merges), texts


@settings(max_examples=150, deadline=None)
@given(SEQUENCES, st.integers(0, 12), st.integers(1, 3), st.sampled_from(["", JOINT]))
def test_merges_are_those_that_are_found_by_counting_all_pairs_anew(sequences, most, least, joint):
    expected, texts = counted_anew(sequences, most, least, joint)
    assert learn_merges(sequences, most, least, joint) == expected
    ranks = {pair: rank for rank, pair in enumerate(expected)}
    for given_tokens, (after, _) in zip(sequences, texts):
        assert (
            apply_merges(given_tokens, ranks, joint)[0] == after
        )  # a text that was learnt from is read as it was left


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), TEXTS)
def test_the_span_map_covers_every_character_and_every_piece_exactly_once(texts, other):
    found = TwoTokenizers.learn(texts, pieces=10, terms=10, least=1)
    for text in [*texts, other]:
        tokens = found.tokens(text)
        covered = [place for start, end in tokens.spans for place in range(start, end)]
        assert covered == [place for place, character in enumerate(text) if not character.isspace()]
        assert len(tokens.general) == len(tokens.spans) == len(tokens.term_of)
        assert sorted(set(tokens.term_of)) == list(range(len(tokens.domain)))
        assert list(tokens.term_of) == sorted(tokens.term_of)
        for place, term in enumerate(tokens.domain):
            own = [piece for piece, of in zip(tokens.general, tokens.term_of) if of == place]
            assert JOINT.join(own) == term


def test_a_term_that_is_said_often_is_one_token_and_does_not_reach_over_punctuation():
    found = TwoTokenizers.learn(["science fiction novel", "science fiction", "science, fiction"], 100, 100)
    tokens = found.tokens("Science Fiction, science. fiction")
    assert [term.count(JOINT) for term in tokens.domain] == [1, 0, 0, 0, 0]
    assert tokens.term_of == (0, 0, 1, 2, 3, 4)
    assert tokens.spans == ((0, 7), (8, 15), (15, 16), (17, 24), (24, 25), (26, 33))


def test_numbers_stand_at_the_places_of_the_pieces():
    found = TwoTokenizers.learn(["red lamp", "red lamp", "blue"], 100, 100, least=2)
    general, domain = found.numbers("red lamp xylophone", 6)
    known = found.tokens("red lamp").domain
    assert domain[0] == domain[1] == 2 + found.domain.index(known[0]) and general[0] != general[1]
    assert (general[2:] >= UNKNOWN).all() and UNKNOWN in general  # "x" was never seen
    assert (found.numbers("red", 3)[0][1:] == 0).all()
    assert (np.array(found.numbers("red lamp", 1)) > 0).all()  # cut in the middle of a term


def test_equal_counts_are_merged_by_name_and_rare_pairs_not_at_all():
    assert learn_merges({("b", "a"): 1, ("a", "b"): 1}, 5, least=1) == (("a", "b"), ("b", "a"))
    assert learn_merges({("b", "a"): 1}, 5, least=2) == ()


@pytest.mark.parametrize("word", ["ÄSSE", "İstanbul", "x"], ids=["umlauts", "dotted capital", "one"])
def test_a_word_has_as_many_characters_in_small_letters(word):
    assert len(characters(word)) == len(word)
