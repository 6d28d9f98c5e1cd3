"""Against a dictionary of prefixes, with items that come and go."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.codes.trie import CodeTrie, LiveTrie

RANDOM = np.random.default_rng(0)
SIZES = (5, 4, 3)
CODES = RANDOM.integers(0, SIZES, size=(40, 3))
POPULARITY = RANDOM.integers(0, 6, size=40)
TRIE = CodeTrie.of(CODES, SIZES, POPULARITY)


def prefix_of(level: int, node: int) -> tuple[int, ...]:
    """Return the codes that lead to a node."""
    item = int(np.flatnonzero(TRIE.node_of[level] == node)[0])
    return tuple(CODES[item, :level].tolist())


def expected_children(prefix: tuple[int, ...], shown: np.ndarray) -> list[int]:
    level = len(prefix)
    return sorted({int(row[level]) for row in CODES[shown] if tuple(row[:level].tolist()) == prefix})


def test_nodes_are_the_distinct_prefixes():
    for level in range(4):
        assert TRIE.width(level) == len(np.unique(CODES[:, :level], axis=0)) if level else TRIE.width(0) == 1
        np.testing.assert_array_equal(TRIE.find(CODES[:, :level]), TRIE.node_of[level])
    assert TRIE.find(np.array([[9, 0, 0], [-1, 0, 0]])).tolist() == [-1, -1]
    missing = [
        code for code in np.ndindex(*SIZES) if code not in {tuple(row) for row in CODES.tolist()}
    ]  # some of the 60 leaves
    assert (TRIE.find(np.array(missing)) == -1).all()


def test_a_leaf_lists_its_items_by_popularity_and_their_shares_sum_to_one():
    place, items = TRIE.items(np.arange(TRIE.width(3)))
    assert sorted(items.tolist()) == list(range(40)) and (TRIE.node_of[3][items] == place).all()
    same = place[1:] == place[:-1]
    assert same.any() and (np.diff(POPULARITY[items])[same] <= 0).all()
    np.testing.assert_allclose(np.bincount(place, weights=np.exp(TRIE.log_shares[items])), 1.0)


def test_an_item_of_popularity_minus_one_has_no_share():
    trie = CodeTrie.of(np.array([[0, 0], [0, 0], [0, 1], [1, 1]]), (2, 2), np.array([4, -1, -1, 0]))
    assert trie.log_shares.tolist() == [0.0, -np.inf, -np.inf, 0.0]


def test_pruned_children_under_churn():
    live, shown = LiveTrie(TRIE), np.ones(40, bool)
    for _ in range(30):
        some = RANDOM.choice(40, size=12, replace=False)
        state = RANDOM.random(12) < 0.4
        live.set(some, state)
        shown[some] = state
        rows, items = RANDOM.integers(3, size=25), RANDOM.integers(40, size=25)
        pruned = live.without(rows, items)
        for row in range(3):
            left = shown.copy()
            left[items[rows == row]] = False
            for level in range(3):
                nodes = np.arange(TRIE.width(level))
                place, codes, children = pruned.children(level, np.full(len(nodes), row), nodes)
                for node in nodes:
                    prefix = prefix_of(level, node)
                    assert codes[place == node].tolist() == expected_children(prefix, left)
                    assert [prefix_of(level + 1, child) for child in children[place == node]] == [
                        (*prefix, code) for code in codes[place == node].tolist()
                    ]
            leaves = np.arange(TRIE.width(3))
            assert sorted(pruned.items(np.full(len(leaves), row), leaves)[1].tolist()) == np.flatnonzero(left).tolist()
    for level, counts in enumerate(live.counts):  # incremental equals counted anew
        np.testing.assert_array_equal(
            counts, np.bincount(TRIE.node_of[level], weights=shown, minlength=TRIE.width(level))
        )


@pytest.mark.parametrize(
    ("codes", "found"),
    [([[0, 4, 0]], "4"), ([[0, -1, 0]], "-1")],
    ids=["too large", "negative"],
)
def test_a_code_outside_its_level_is_an_error(codes, found):
    with pytest.raises(InputError) as error:
        CodeTrie.of(np.array(codes), SIZES)
    assert error.value.found == found
    for bad in (np.zeros((3, 2)), np.zeros((0, 3), int), np.zeros(3, int), np.zeros((2, 2), int)):
        with pytest.raises(InputError):
            CodeTrie.of(bad, SIZES)
