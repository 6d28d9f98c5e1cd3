import numpy as np

from taiji.data.vocabulary import Vocabulary, stable_hash


def test_hash_is_the_same_everywhere():
    assert stable_hash(["a", 1, "1"]).tolist() == [3405396810240292928, 8518482412311870710, 8518482412311870710]


def test_known_ids_get_their_own_rows_and_others_share():
    ids = [f"i{n}" for n in range(50)]
    vocabulary = Vocabulary.fit(stable_hash(ids), np.arange(50), min_count=10, max_rows=30, hashed=8)
    rows = vocabulary.rows([*ids, "never seen", None])
    assert len(vocabulary) == 1 + 8 + 30
    assert len(set(rows[20:50].tolist())) == 30 and rows[20:50].min() > 8
    assert np.all((rows[:20] >= 1) & (rows[:20] <= 8)) and 1 <= rows[50] <= 8 and rows[51] == 0
    assert rows.max() < len(vocabulary)


def test_rows_do_not_depend_on_the_order_of_the_table():
    ids = [f"i{n}" for n in range(20)]
    forward = Vocabulary.fit(stable_hash(ids), np.ones(20), 1, 100, 4)
    backward = Vocabulary.fit(stable_hash(ids[::-1]), np.ones(20), 1, 100, 4)
    assert np.array_equal(forward.rows(ids), backward.rows(ids))
