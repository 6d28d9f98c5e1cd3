import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.data.past_counts import PastCount


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([1, -3, 10**15]),
    events=st.integers(0, 60),
    queries=st.integers(1, 30),
)
def test_agrees_with_counting(seed, spread, events, queries):
    random = np.random.default_rng(seed)
    keys, times = random.integers(0, 5, events), random.integers(1, 20, events)
    asked, now = random.integers(-1, 7, queries), random.integers(0, 22, queries)
    counter = PastCount(spread * keys, times)
    count, last = counter.before(spread * asked, now)
    recent = counter.between(spread * asked, now - 4, now)
    for row, (key, moment) in enumerate(zip(asked, now)):
        past = times[(keys == key) & (times < moment)]
        assert count[row] == len(past) and last[row] == (past.max() if len(past) else 0)
        assert recent[row] == (past >= moment - 4).sum()


def test_keys_that_lie_far_apart_are_found_and_others_are_not():
    counts = PastCount(np.array([10**9, 7, 10**9]), np.array([1, 2, 3]))
    found, last = counts.before(np.array([10**9, 7, 0, 8, 10**12]), np.array([9, 9, 9, 9, 9]))
    assert found.tolist() == [2, 1, 0, 0, 0] and last.tolist() == [3, 2, 0, 0, 0]
