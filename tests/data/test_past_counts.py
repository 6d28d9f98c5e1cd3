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
